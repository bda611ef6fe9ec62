"""Which of many like events are told one by one, so that a flood of them fills no disk. Pure.

The first of each kind in a minute are told, the others are counted, and the counts are told at its end.
"""

from __future__ import annotations

from typing import NamedTuple

WINDOW = 60.0
"""Seconds for which events of one kind belong together."""

TOLD = 5
"""Events of one kind that are told in a window."""

TOLD_OF_ALL = 200
"""Events of all kinds that are told in a window."""

SUMS_TOLD = 100
"""Kinds whose rest is told, the largest first; what is left is told by reason alone."""

MOST_KINDS = 2048
"""Kinds that are told apart in a window; those beyond are counted together, with no address."""


class Untold(NamedTuple):
    """``times`` events of a kind that were not told; ``address`` is empty for those of all others."""

    reason: str
    address: str
    times: int


class Sampling:
    """Times in seconds, of any clock that only goes forward."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._told = 0
        self._since: float | None = None

    def wants(self, reason: str, address: str, now: float) -> bool:
        """Count an event; whether it is to be told."""
        if self._since is None:
            self._since = now
        kind = (reason, address)
        count = self._counts.get(kind)
        if count is None and len(self._counts) >= MOST_KINDS:
            kind = (reason, "")
            count = self._counts.get(kind)
        if (count or 0) < TOLD and self._told < TOLD_OF_ALL and kind[1]:
            self._told += 1
            self._counts[kind] = (count or 0) + 1
            return True
        self._counts[kind] = max(count or 0, TOLD) + 1  # whatever is above TOLD was not told
        return False

    def take(self, now: float) -> list[Untold]:
        """What was not told, once the window is over; then a new one begins with the next event."""
        if self._since is None or now - self._since < WINDOW:
            return []
        untold = [Untold(*kind, count - TOLD) for kind, count in self._counts.items() if count > TOLD]
        told = sorted((one for one in untold if one.address), key=lambda one: -one.times)[:SUMS_TOLD]
        others: dict[str, int] = {}
        for reason, _, times in set(untold).difference(told):
            others[reason] = others.get(reason, 0) + times
        self._counts.clear()
        self._told = 0
        self._since = None
        return told + [Untold(reason, "", times) for reason, times in others.items()]
