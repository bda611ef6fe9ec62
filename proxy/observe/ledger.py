"""What was used and is not in the store yet: by hour, key, model and route. In memory, without I/O.

A batch stays the same until it is known to be written. Whatever interrupts a writer, it asks for the batch
again and offers it again, and the store knows by its number whether it has it. So nothing is lost and nothing
is counted twice, and only what the process had not written is gone when it is killed.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from proxy.policy.routes import OTHER

HOUR = 3600

MOST_ROWS = 10_000
"""Rows that a batch tells apart, some 3 MB; they last for a long outage of the store."""


class Row(NamedTuple):
    """What one key used of one model by one route in one hour.

    ``hour`` is the unix second at which it began. ``key_id`` is None for callers without a key of ours, who
    are one for all: ``key_name`` is then ``anonymous`` or ``jwt``. ``model`` is None for requests of none.
    Tokens that no answer told count as 0. ``seconds`` are those of the requests from their beginning to
    their end, added up.
    """

    hour: int
    key_id: str | None
    key_name: str
    model: str | None
    route: str
    requests: int
    input_tokens: int
    output_tokens: int
    seconds: float


class Batch(NamedTuple):
    """Rows to be written together. ``number`` counts the batches of one ``writer``, a process, from 1."""

    writer: str
    number: int
    rows: tuple[Row, ...]


_Key = tuple[float, str | None, str, str | None, str]


class _Counts:
    __slots__ = ("input_tokens", "output_tokens", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.seconds = 0.0


class Ledger:
    """Counts until it is asked for a batch.

    Labels are bounded by the caller: names of keys, models that Ollama lists, rows of the route table. Were
    there more than ``MOST_ROWS`` combinations even so, as when the store cannot be written for days, further
    ones are counted as their key's alone, with model and route ``other`` and the hour in which that began:
    one row a key, so that totals of keys stay right.
    """

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._writer = os.urandom(16).hex()
        self._number = 0
        self._most_rows = most_rows
        self._batch: Batch | None = None
        self._counts: dict[_Key, _Counts] = {}
        self._crowded: dict[tuple[str | None, str], _Key] = {}

    def add(
        self,
        now: float,
        key_id: str | None,
        key_name: str,
        model: str | None,
        route: str,
        input_tokens: int | None,
        output_tokens: int | None,
        seconds: float,
    ) -> None:
        """Count a request that ended at ``now``, unix seconds, and took ``seconds``; None is unknown."""
        key = (now // HOUR, key_id, key_name, model, route)
        counts = self._counts.get(key) or self._begin(key)
        counts.requests += 1
        if input_tokens:
            counts.input_tokens += input_tokens
        if output_tokens:
            counts.output_tokens += output_tokens
        counts.seconds += seconds

    def batch(self) -> Batch | None:
        """What is to be written now: the last batch again until `written` is told of it; None is nothing."""
        if self._batch is None and self._counts:
            self._number += 1
            self._batch = Batch(self._writer, self._number, tuple(map(_row, self._counts.items())))
            self._counts = {}
            self._crowded = {}
        return self._batch

    def written(self, batch: Batch) -> None:
        """The store has the batch, which is forgotten."""
        if self._batch is batch:
            self._batch = None

    def _begin(self, key: _Key) -> _Counts:
        if len(self._counts) - len(self._crowded) >= self._most_rows:
            hour, key_id, key_name, *_ = key
            key = self._crowded.setdefault((key_id, key_name), (hour, key_id, key_name, OTHER, OTHER))
        return self._counts.setdefault(key, _Counts())


def _row(entry: tuple[_Key, _Counts]) -> Row:
    (hour, key_id, key_name, model, route), counts = entry
    sums = counts.requests, counts.input_tokens, counts.output_tokens, counts.seconds
    return Row(int(hour) * HOUR, key_id, key_name, model, route, *sums)
