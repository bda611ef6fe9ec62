"""What a request's body asks of Ollama: the names, options and tools in it. Pure.

The body is read as strictly as JSON can be, because Ollama's own reader (Go's encoding/json) takes letters
of either case, even a long s and the Kelvin sign, for a name's letters, lets the last of several members win,
merges objects, ignores null, and stops at the first value. Whatever it could so read in another way than
we do is refused; the body that goes on is the one that came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from proxy.errors import ProxyError
from proxy.policy.model_names import ModelName, Reading, read_name, trimmed
from proxy.policy.routes import ModelPlace, Route

OPTIONS = frozenset({"num_ctx", "num_predict", "num_gpu", "num_thread"})
"""The members of ``options`` (create: ``parameters``) that a grant can speak about."""

OUTPUT_LIMITS = ("max_tokens", "max_output_tokens", "max_completion_tokens")
"""Where OpenAI's and Anthropic's requests say how long an answer may become.

The last one is read in the cloud alone, which gets the body as it is.
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request asks for. Values of options are as they stand; null counts as absent everywhere.

    ``remote`` is the address of another Ollama in create. ``web_tools`` are those that Ollama serves itself
    through its vendor's account, ``insecure`` asks to leave TLS out.
    """

    names: tuple[ModelName, ...] = ()
    remote: bool = False
    web_tools: bool = False
    insecure: bool = False
    debug: bool = False
    keep_alive: object = None
    options: Mapping[str, object] = field(default_factory=dict)


NO_FACTS = Facts()

# The members that Ollama reads and a grant can speak about: they must stand in exactly this spelling.
_KNOWN = frozenset(
    {"model", "name", "source", "destination", "from", "remote_host", "options", "parameters", "keep_alive"}
    | {"tools", "insecure", "_debug_render_only", *OUTPUT_LIMITS}
)
_AS_WRITTEN = frozenset({"/api/push", "/api/copy", "/api/create"})
_WEB_TOOLS = ("web_search", "web_fetch")
_FOLDS = str.maketrans({"\N{LATIN SMALL LETTER LONG S}": "s", "\N{KELVIN SIGN}": "k"})


class _Repeated(dict[str, Any]):
    """An object in which a member stood more than once."""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    return found if len(found) == len(members) else _Repeated(found)


def _not_json(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


_DECODE = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_not_json).decode


def unreadable(text: str) -> ProxyError:
    return ProxyError("unreadable_body", text)


def read_body(route: Route, body: bytes) -> Facts:
    """What a body says on a route whose model stands in a JSON body.

    Raises ProxyError ``unreadable_body`` where the body is anything but one JSON object in UTF-8 whose
    members Ollama and we must understand alike.
    """
    members = _members(body)
    tools = route.web_tools and _has_web_tool(members.get("tools"))
    options = _within(members, "parameters" if route.model is ModelPlace.BODY_CREATE else "options")
    asked = {name: _plain(options[name]) for name in OPTIONS if options.get(name) is not None}
    asked |= {name: _plain(members[name]) for name in OUTPUT_LIMITS if members.get(name) is not None}
    return Facts(
        names=_names(route, members),
        remote=route.model is ModelPlace.BODY_CREATE and bool(_text(members, "remote_host")),
        web_tools=tools,
        insecure=_flag(members, "insecure"),
        debug=_flag(members, "_debug_render_only"),
        keep_alive=_plain(members.get("keep_alive")),
        options=asked,
    )


def facts_of_path(segment: bytes) -> Facts:
    """What ``/v1/models/{model}`` names; the path was matched by the table of routes."""
    text = segment.decode("ascii").replace("%3A", ":")
    return Facts(names=(read_name(text, Reading.REFERENCE),))


def _members(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise unreadable("the body is not UTF-8: send JSON in UTF-8 (RFC 8259 section 8.1)") from None
    try:
        found = _DECODE(text)
    except (ValueError, RecursionError):  # the parser's own words may repeat the body
        raise unreadable(
            "the body is not one JSON value alone, or too deep: send one object and nothing after it"
        ) from None
    if not isinstance(found, dict):
        raise unreadable("the body is not a JSON object: send one object")
    members: dict[str, Any] = found
    _check_names(members, _KNOWN)
    return members


def _check_names(members: dict[str, Any], known: frozenset[str]) -> None:
    """Refuse members that Ollama could take for one another, or for one that we did not see."""
    folded = {_folded(name) for name in members}
    if isinstance(members, _Repeated) or len(folded) < len(members):
        raise unreadable("a member of the body stands there twice, upper and lower case alike: send it once")
    if not folded.isdisjoint(known) and any(name not in known and _folded(name) in known for name in members):
        raise unreadable("a member's name is not in lower case: write it as Ollama's API does")


def _folded(name: str) -> str:
    return name.lower() if name.isascii() else name.translate(_FOLDS).casefold()


def _names(route: Route, members: dict[str, Any]) -> tuple[ModelName, ...]:
    reading = Reading.AS_WRITTEN if route.path in _AS_WRITTEN else Reading.REFERENCE
    if route.model is ModelPlace.BODY_COPY:
        return tuple(read_name(_needed(members, key), reading) for key in ("source", "destination"))
    if route.model is ModelPlace.BODY_MODEL:
        return (read_name(_needed(members, "model"), reading),)
    model, name = _text(members, "model"), _text(members, "name")
    if model and name and model != name:
        raise unreadable("'model' and 'name' are both there and differ: send only 'model'")
    names: tuple[ModelName, ...] = (read_name(model or name or _needed(members, "model"), reading),)
    if route.model is ModelPlace.BODY_CREATE and (source := _text(members, "from")):
        names += (read_name(source, Reading.REFERENCE),)
    return names


def _text(members: dict[str, Any], key: str) -> str:
    """The text of a member; empty where it is not there or null."""
    value = members.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise unreadable(f"'{key}' is not text: write it in quotes")
    return value


def _needed(members: dict[str, Any], key: str) -> str:
    text = _text(members, key)
    if not trimmed(text):
        raise unreadable(f"'{key}' is missing or empty: name the model")
    return text


def _plain(value: object) -> object:
    """A number or a short text; of anything else only that it is something else."""
    if value is None or isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 64):
        return value
    return "?"


def _flag(members: dict[str, Any], key: str) -> bool:
    value = members.get(key)
    if value is not None and not isinstance(value, bool):
        raise unreadable(f"'{key}' is not true or false")
    return bool(value)


def _within(members: dict[str, Any], key: str) -> dict[str, Any]:
    """An object in the body; its members count in their exact spelling (a map in Ollama)."""
    value = members.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or isinstance(value, _Repeated):
        raise unreadable(f"'{key}' is not an object whose members each stand there once")
    return value


def _has_web_tool(tools: object) -> bool:
    """Whether a tool is one that Ollama serves itself; tools may hold tools (``namespace``).

    Not by recursion, which may end before the parser's own does.
    """
    found, waiting = False, [tools]
    while waiting:
        tools = waiting.pop()
        if tools is None:
            continue
        if not isinstance(tools, list):
            raise unreadable("'tools' is not a list")
        for tool in tools:
            if not isinstance(tool, dict):
                raise unreadable("one of 'tools' is not an object")
            if not tool:
                continue
            _check_names(tool, _TOOL)
            kind = _folded(trimmed(_text(tool, "type")))  # Ollama trims it where the model is in the cloud
            found |= kind.startswith(_WEB_TOOLS)
            waiting.append(tool.get("tools"))
    return found


_TOOL = frozenset({"type", "tools"})
