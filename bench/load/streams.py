"""Many chat streams at once: connects all, says so, waits for a line, then reads every stream to its end.

Fails when a stream has fewer or more chunks than asked for, no proper end, or another status than 200.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

from bench.load.target import Target, answer, client_context, parser
from bench.upstream import MARK

_BODY = b'{"model":"llama3.2","messages":[{"role":"user","content":"Tell me a long story about a proxy."}]}'
_END = b"\r\n0\r\n\r\n"


class Stream(asyncio.Protocol):
    """One stream: counts marks, not bytes, because a proxy may frame chunks anew."""

    def __init__(self, ended: asyncio.Future[None]) -> None:
        self._ended = ended
        self._head: bytes | None = b""
        self._tail = b""
        self.chunks = 0
        self.reads = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(f"answered {head.partition(bytes([13]))[0].decode('latin-1')}")
                return
            self._head = None
            data = b"\r\n" + data
        self.chunks += data.count(MARK)
        self._tail = (self._tail + data)[-len(_END) :]
        if self._tail == _END and not self._ended.done():
            self._ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"broke off after {self.chunks} chunks")

    def _fail(self, how: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(ConnectionError("a stream " + how))


async def run(target: Target, streams: int, chunks: int) -> None:
    """Prints `connected`, reads a line, then prints the result."""
    loop = asyncio.get_running_loop()
    context = client_context() if target.tls else None
    ends: list[asyncio.Future[None]] = []
    opened: list[Stream] = []
    for _ in range(streams):
        ends.append(loop.create_future())
        opened.append(Stream(ends[-1]))
        await loop.create_connection(lambda: opened[-1], "127.0.0.1", target.port, ssl=context)
    print("connected", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    started = time.perf_counter()
    request = target.head("POST", "/api/chat", len(_BODY)) + _BODY
    for stream in opened:
        stream.transport.write(request)
    await asyncio.gather(*ends)
    seconds = time.perf_counter() - started
    for stream in opened:
        if stream.chunks != chunks:
            raise ConnectionError(f"a stream ended after {stream.chunks} chunks of {chunks}")
    reads = sum(stream.reads for stream in opened)
    answer(chunks=streams * chunks, reads=reads, seconds=seconds)


def main() -> None:
    arguments = parser("Many chat streams at once.")
    arguments.add_argument("--streams", type=int, default=400)
    arguments.add_argument("--chunks", type=int, default=150)
    given = arguments.parse_args()
    try:
        uvloop.run(run(given.target, given.streams, given.chunks))
    except ConnectionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
