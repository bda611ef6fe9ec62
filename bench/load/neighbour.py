"""Small GETs of a few neighbours, each at a steady rate, while something else goes on: how long they wait.

A time counts from when the GET was due, so that one that waits for the one before it waits as well.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

from bench.load.latency import percentile
from bench.load.target import Target, answer, parser

NEIGHBOURS = 8
PAUSE = 0.04
"""Seconds between two GETs of one neighbour."""


class Neighbour(asyncio.Protocol):
    """One connection; ``taken`` are the times of its GETs, in milliseconds."""

    def __init__(self, target: Target, begins: float, ends: float, done: asyncio.Future[None]) -> None:
        self.taken: list[float] = []
        self._request = target.head("GET", "/api/version")
        self._due = begins
        self._ends = ends
        self._done = done
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        asyncio.get_running_loop().call_at(self._due, self._ask)

    def _ask(self) -> None:
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"}"):
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self._end(ConnectionError(f"a request was answered by {self._received[:12]!r}"))
            return
        self._received = b""
        self.taken.append((time.monotonic() - self._due) * 1000)
        self._due += PAUSE
        if self._due >= self._ends:
            self._end(None)
        elif self._due > time.monotonic():
            asyncio.get_running_loop().call_at(self._due, self._ask)
        else:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError("a connection was closed"))

    def _end(self, fault: Exception | None) -> None:
        if self._done.done():
            return
        if fault is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(fault)


async def run(target: Target, seconds: float) -> None:
    """Prints p50, p99 and the longest time, in milliseconds."""
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.1  # time.monotonic, to a millisecond
    ends = [loop.create_future() for _ in range(NEIGHBOURS)]
    neighbours: list[Neighbour] = []
    for number, done in enumerate(ends):
        begins = began + number * PAUSE / NEIGHBOURS
        neighbours.append(Neighbour(target, begins, begins + seconds, done))
        await loop.create_connection(lambda: neighbours[-1], "127.0.0.1", target.port)
    await asyncio.gather(*ends)
    taken = [time for neighbour in neighbours for time in neighbour.taken]
    answer(p50_ms=percentile(taken, 50), p99_ms=percentile(taken, 99), max_ms=max(taken))


def main() -> None:
    arguments = parser("Small GETs of a few neighbours.")
    arguments.add_argument("--seconds", type=float, default=4)
    given = arguments.parse_args()
    try:
        uvloop.run(run(given.target, given.seconds))
    except ConnectionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
