"""JSON (RFC 8259) that can be read in one way only, and within bounds. Pure.

Python's own reader takes the last of two members with one name, NaN, 1e400 as infinity, lone surrogates, and
as many levels as its stack holds. Tokens and key sets come from strangers, so all of that is refused here.
"""

from __future__ import annotations

import json
import math
import re

MAX_DEPTH = 16
"""Objects and lists inside each other."""

_MAX_NUMBER_LENGTH = 32  # characters; a double needs 24 at most
# Possessive, so that what does not end is found in one pass. A quote alone begins a text that has no end.
_TEXT_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{}]', re.DOTALL)


def parse(data: bytes, max_values: int) -> object:
    """The value that the bytes hold.

    Raises ValueError where they are not UTF-8, not JSON, hold a name twice in one object, a number that is
    not finite or longer than 32 characters, half of a surrogate pair, more than `MAX_DEPTH` levels, or more
    than about ``max_values`` values, which are what a reader's time goes into.
    """
    text = data.decode("utf-8")
    containers = text.count("[") + text.count("{")  # also those in texts; so are the commas
    if containers + text.count(",") > max_values:
        raise ValueError("too many values")
    if containers > MAX_DEPTH:
        _check_depth(text)
    value: object = _DECODER.decode(text)
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # UnicodeEncodeError is a ValueError
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for match in _TEXT_OR_BRACKET.finditer(text):
        match match[0]:
            case "[" | "{":
                depth += 1
                if depth > MAX_DEPTH:
                    raise ValueError("nested too deeply")
            case "]" | "}":
                depth -= 1
            case '"':
                raise ValueError("a text without an end")


def _object(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a name stands twice in one object")
    return found


def _whole_number(text: str) -> int:
    if len(text) > _MAX_NUMBER_LENGTH:
        raise ValueError("a number is too long")
    return int(text)


def _fraction(text: str) -> float:
    number = float(text)
    if len(text) > _MAX_NUMBER_LENGTH or not math.isfinite(number):
        raise ValueError("a number is too long or too large")
    return number


def _constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole_number, parse_float=_fraction, parse_constant=_constant
)
