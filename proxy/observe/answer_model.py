"""The model that an answer names, read from its first bytes. Pure.

It is a member of the outermost object, or of the ``message`` or ``response`` in the first event of a stream,
and only plain members stand before it. Texts of models and clients are strings, in which quotes are escaped,
so they cannot hold one. Source: the same files of Ollama as for `proxy.observe.usage`.
"""

from __future__ import annotations

import json
import re

from proxy.policy.routes import Route

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PLAIN = rb"(?:" + _STRING + rb"|[\w.+-]++|\{\})"
# The chunks of /v1/completions alone name it behind their choice.
_CHOICE = rb'\[\{(?:"\w++":' + _PLAIN + rb",?+)*+\}\]"
_OPENING = rb'(?:event: [\w.]++\n)?+(?:data: )?+(?:\{"type":"message_start","message":|\{"response":)?+'
_BEFORE = rb'(?:"(?!model")\w++":(?:' + _PLAIN + rb"|" + _CHOICE + rb"),)*+"
_HEAD = re.compile(_OPENING + rb"\{" + _BEFORE + rb'"model":(' + _STRING + rb")[,}]")

# /v1/embeddings names it behind the embeddings, which are numbers or base64.
_BEHIND = b'}],"model":"'
_TAIL = re.compile(rb'\}\],"model":(' + _STRING + rb'),"usage":\{[^{}]*+\}\}\n?+\Z')

_NAMED_LAST = "/v1/embeddings"
_UNNAMED = frozenset({"/api/embeddings", "/v1/audio/transcriptions"})


def model_in(route: Route, head: bytes, tail: bytes) -> str | None:
    """The name of the model as Ollama spells it, or None where it is not found.

    ``head`` are the first bytes of the answer's body, ``tail`` are the last ones.
    """
    if route.path in _UNNAMED:  # a transcription may be plain text, of any kind
        return None
    if route.path == _NAMED_LAST:
        start = tail.rfind(_BEHIND)
        found = _TAIL.match(tail, start) if start >= 0 else None
    else:
        found = _HEAD.match(head)
    if found is None:
        return None
    try:
        name: str = json.loads(found[1].decode())
        name.encode()  # half of a surrogate pair is no name
    except ValueError:
        return None
    return name
