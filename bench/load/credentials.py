"""Small GETs on 32 connections, each with the next of the credentials on standard input, one a line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import uvloop

from bench.load.small_requests import CONNECTIONS
from bench.load.target import Target, answer, parser


class Caller(asyncio.Protocol):
    """One connection; asks as long as there are requests, then is done."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._done = done
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._ask()

    def _ask(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"}"):
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self._fail(f"a request was answered by {self._received[:12]!r}")
            return
        self._received = b""
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("a connection was closed")

    def _fail(self, how: str) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(how))


async def run(target: Target, credentials: list[str]) -> None:
    """Prints how many requests were answered."""
    loop = asyncio.get_running_loop()
    requests = iter([replace(target, key=one).head("GET", "/api/version") for one in credentials])
    ends: list[asyncio.Future[None]] = []
    for _ in range(CONNECTIONS):
        ends.append(loop.create_future())
        await loop.create_connection(lambda: Caller(requests, ends[-1]), "127.0.0.1", target.port)
    await asyncio.gather(*ends)
    answer(requests=len(credentials))


def main() -> None:
    given = parser("Small GETs with a credential each.").parse_args()
    try:
        uvloop.run(run(given.target, sys.stdin.read().split()))
    except ConnectionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
