"""Request bodies as Ollama reads them (Go's encoding/json), with Go's own error texts.

Keys are case-insensitive, the last of several wins, null is the same as absent, and whatever follows the
first JSON value is ignored. Inside nested objects keys are taken as they are.
"""

from __future__ import annotations

import json
import re

from proxy.simulator.errors import MalformedError

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_FOREVER = 1e9  # seconds; Ollama's own "never" is 292 years


class _Object(dict[str, object]):
    """A JSON object that remembers its members in document order, doubled keys included."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _refuse_constant(name: str) -> object:
    raise MalformedError(f"invalid character '{name.lstrip('-')[0]}' looking for beginning of value")


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=_refuse_constant)


class Body:
    """The members of one request; each reader raises MalformedError where Go could not read the value."""

    def __init__(self, members: dict[str, object], struct: str = "") -> None:
        self._members = members
        self._struct = struct.rpartition(".")[2]

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def value(self, key: str) -> object:
        return self._members.get(key)

    def text(self, key: str) -> str:
        value = self._members.get(key, "")
        if not isinstance(value, str):
            raise self._wrong_type(key, value, "string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._members.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong_type(key, value, "bool")
        return value

    def integer(self, key: str) -> int:
        """0 where absent."""
        value = self._members.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong_type(key, value, "int")
        return value

    def items(self, key: str, go_type: str) -> list[object]:
        value = self._members.get(key, [])
        if not isinstance(value, list):
            raise self._wrong_type(key, value, go_type)
        return value

    def mapping(self, key: str) -> dict[str, object]:
        value = self._members.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong_type(key, value, "map[string]interface {}")
        return value

    def seconds(self, key: str) -> float | None:
        """An Ollama duration: a number of seconds or a Go duration; negative is for ever; None if absent."""
        value = self._members.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            sign, digits = (-1, value[1:]) if value.startswith("-") else (1, value.removeprefix("+"))
            parts = _DURATION.findall(digits)
            if digits != "0" and (not parts or "".join(n + unit for n, unit in parts) != digits):
                raise MalformedError(f"time: invalid duration {json.dumps(value)}")
            seconds = sign * sum(float(n) * _NANOSECONDS[unit] for n, unit in parts) / 1e9
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        else:
            raise MalformedError(f"Unsupported type: '{_go_kind(value)}'")
        return _FOREVER if seconds < 0 else min(seconds, _FOREVER)

    def _wrong_type(self, key: str, value: object, go_type: str) -> MalformedError:
        kind, field = _go_kind(value), f"{self._struct}.{key}"
        return MalformedError(f"json: cannot unmarshal {kind} into Go struct field {field} of type {go_type}")


def read(raw: bytes, struct: str) -> Body:
    """The body `raw` as Go's `struct` (for example `api.ChatRequest`); raises MalformedError."""
    text = raw.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise MalformedError("missing request body" if struct.startswith("api.") else "EOF")
    try:
        value, _ = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise MalformedError(_go_error(error, text)) from None
    except RecursionError:
        raise MalformedError("exceeded max depth") from None
    if value is None:
        return Body({}, struct)
    if not isinstance(value, _Object):
        raise MalformedError(f"json: cannot unmarshal {_go_kind(value)} into Go value of type {struct}")
    return Body({key.casefold(): member for key, member in value.pairs if member is not None}, struct)


def _go_kind(value: object) -> str:
    for types, kind in (
        ((bool,), "bool"),
        ((str,), "string"),
        ((int, float), "number"),
        ((list,), "array"),
    ):
        if isinstance(value, types):
            return kind
    return "object"


def _go_error(error: json.JSONDecodeError, text: str) -> str:
    at = text[error.pos : error.pos + 1].encode("utf-8", "replace")[:1].decode("latin-1")  # Go shows a byte
    if not at or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    if error.msg.startswith("Expecting property name"):
        where = "looking for beginning of object key string"
    elif error.msg.startswith("Expecting ':'"):
        where = "after object key"
    elif error.msg.startswith("Expecting ','"):
        where = "after object key:value pair"
    elif error.msg.startswith("Invalid control character"):
        where = "in string literal"
    else:
        where = "looking for beginning of value"
    return f"invalid character {at!r} {where}"
