"""The model that a transcription's form names (RFC 7578), read as strictly as it can be written. Pure.

Ollama's reader decodes quoted-printable parts, takes the first of several fields and knows several ways to
write a boundary or a field's name. A form that uses any of that is refused.
"""

from __future__ import annotations

import re

from proxy.errors import ProxyError
from proxy.policy.body import Facts, unreadable
from proxy.policy.model_names import Reading, read_name, trimmed

MOST_PARTS = 1000
"""Ollama's reader (Go's mime/multipart) takes no more."""

_CONTENT_TYPE = re.compile(
    rb"multipart/form-data[ \t]*;[ \t]*boundary="
    rb"(?:\"([A-Za-z0-9'()+_,./:=? -]{1,70})\"|([A-Za-z0-9'+_.-]{1,70}))",
    re.IGNORECASE,
)
# ``filename*`` (RFC 5987) is what some clients write for letters beyond ASCII. It says nothing about the
# field's name, as ``name*`` would, and a part that has it is never taken for the field 'model'.
_DISPOSITION = re.compile(
    rb"Content-Disposition:[ \t]*form-data;[ \t]*name=(?:\"([^\"\\\r\n]{0,200})\"|([A-Za-z0-9_.-]{1,200}))"
    rb"((?:;[ \t]*filename=(?:\"(?:[^\"\\\r\n]|\\[^\r\n]){0,1000}\"|[A-Za-z0-9_.-]{1,1000}))?"
    rb"(?:;[ \t]*filename\*=[A-Za-z0-9%'!#$&+.^_`|~-]{1,3000})?)",
    re.IGNORECASE,
)
# What else clients send with a part, and Ollama does not look at.
_OTHER = re.compile(
    rb"Content-Type:[ \t]*[!-~ \t]{1,200}|Content-Length:[ \t]*[0-9]{1,20}"
    rb"|Content-Transfer-Encoding:[ \t]*(?:7bit|8bit|binary)",
    re.IGNORECASE,
)


def read_form(content_type: bytes | None, body: bytes) -> Facts:
    """What the form's field ``model`` names. Raises ProxyError ``unreadable_body``."""
    match = _CONTENT_TYPE.fullmatch(content_type or b"")
    boundary = (match[1] or match[2]) if match else b""
    if not boundary or boundary.endswith(b" "):
        raise unreadable("the Content-Type is not multipart/form-data with one plain boundary")
    delimiter = b"\r\n--" + boundary
    first, *parts = (b"\r\n" + body).split(delimiter, MOST_PARTS + 1)
    if first or len(parts) < 2 or parts[-1] not in (b"--", b"--\r\n"):
        raise _broken()
    models = [value for name, value in map(_field, parts[:-1]) if name == b"model"]
    if len(models) != 1:
        raise unreadable("the form must have one field 'model'")
    try:
        text = models[0].decode("utf-8")
    except UnicodeDecodeError:
        raise unreadable("the form's field 'model' is not UTF-8") from None
    if not trimmed(text):
        raise unreadable("the form's field 'model' is empty: name the model")
    return Facts(names=(read_name(text, Reading.REFERENCE),))


def _field(part: bytes) -> tuple[bytes, bytes]:
    """Name and value of one part."""
    head, found, value = part.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    if not found or start:
        raise _broken()
    dispositions = [match for line in lines if (match := _DISPOSITION.fullmatch(line))]
    others = [line for line in lines if _OTHER.fullmatch(line)]
    if len(dispositions) != 1 or 1 + len(others) != len(lines):
        raise _broken()
    quoted, bare, filename = dispositions[0].groups()
    name: bytes = bare if quoted is None else quoted
    if name.lower() == b"model" and (name != b"model" or filename):
        raise unreadable("the form's field 'model' must be a plain field of that name")
    return name, value


def _broken() -> ProxyError:
    return unreadable(
        "the form has parts that are not plain: send a plain Content-Disposition and Content-Type with each"
    )
