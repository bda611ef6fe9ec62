"""How long a ``keep_alive`` is, as Ollama reads it (api/types.go, Go's time.ParseDuration). Pure."""

from __future__ import annotations

import math
import re

_SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
"""Nanoseconds, which is what Go counts in."""
_LONGEST = 2**63 - 1

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DURATION = re.compile(rf"([+-]?)((?:{_NUMBER}(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)")
_PARTS = re.compile(r"([0-9]*)\.?([0-9]*)([a-z\u00b5\u03bc]+)")


def keep_alive_seconds(value: object) -> float | None:
    """Seconds, infinity for a negative one.

    None for what Ollama would refuse, and for numbers so large that what it makes of them depends on the
    processor: on some the model is unloaded at once.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        if value < 0:
            return math.inf
        # Compared first: an integer may be too large for a float.
        return math.trunc(value * 1e9) / 1e9 if value < _LONGEST / _SECOND else None
    if not isinstance(value, str):
        return None
    if value in ("0", "+0", "-0"):
        return 0.0
    match = _DURATION.fullmatch(value)
    if match is None:
        return None
    nanoseconds = sum(_nanoseconds(*part) for part in _PARTS.findall(match[2]))
    if nanoseconds > _LONGEST:
        return None
    if match[1] == "-" and re.search("[1-9]", match[2]):
        # Less than a nanosecond may be rounded to none or to one: for ever, or not at all.
        return math.inf if nanoseconds > 0 else None
    return nanoseconds / _SECOND


def _nanoseconds(whole: str, fraction: str, unit: str) -> int:
    scale: int = 10 ** len(fraction)
    return int(whole + fraction) * _UNITS[unit] // scale
