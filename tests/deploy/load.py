"""Clients of every kind, all at once, that hold each answer to its last byte; and the upstream for them.

Every request has a number, and its answer says it. A client does what clients do: it keeps its connection,
and opens another one where the answer said `Connection: close` or the server has closed it in between.
Anything else that goes wrong counts as a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ..wire.exchange import Exchange
from ..wire.upstream import message

CHUNKS = 20
CHUNK_INTERVAL = 0.04
"""Seconds between two lines of a stream."""

PATIENCE = 30.0
"""Seconds for one request."""

STREAM_HEAD = message(
    "200 OK", [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")], length=False
)


def line(number: int, part: int) -> bytes:
    words = {"model": "m", "number": number, "part": part, "done": part == CHUNKS, "padding": "x" * 200}
    return json.dumps(words).encode() + b"\n"


def answer(exchange: Exchange) -> None:
    """What the upstream answers: a stream to a chat, a few bytes to everything else."""
    body = exchange.read_body()
    number = int(exchange.all("x-number")[0])
    if exchange.target != "/api/chat":
        exchange.send(message("200 OK", [("Content-Type", "application/json")], short(number, len(body))))
        return
    exchange.send(STREAM_HEAD)
    for part in range(CHUNKS + 1):
        exchange.chunk(line(number, part))
        time.sleep(CHUNK_INTERVAL)
    exchange.send(b"0\r\n\r\n")


def short(number: int, received: int) -> bytes:
    return json.dumps({"number": number, "received": received}).encode()


KINDS = {"stream", "post", "kept", "idle", "fresh"}


class BrokenError(Exception):
    """An answer that is not what was asked for."""


@dataclass
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes


@dataclass
class Client:
    """One connection at a time; a context of None is without TLS."""

    port: int
    key: str
    trust: ssl.SSLContext | None
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    opened: int = 0

    async def ask(self, method: str, path: str, number: int, body: bytes) -> Answer:
        """Raises BrokenError, OSError, TimeoutError or asyncio.IncompleteReadError."""
        async with asyncio.timeout(PATIENCE):
            if self.reader is None or self.writer is None or self.reader.at_eof():
                self.close()
                self.reader, self.writer = await asyncio.open_connection(
                    "127.0.0.1",
                    self.port,
                    ssl=self.trust,
                    server_hostname="localhost" if self.trust else None,
                )
                self.opened += 1
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
                f"X-Number: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            self.writer.write(head.encode() + body)
            answer = await self._answer()
            if answer.fields.get("connection", "").lower() == "close":
                if rest := await self.reader.read():
                    raise BrokenError(f"{len(rest)} bytes after the last answer")
                self.close()
            return answer

    async def _answer(self) -> Answer:
        assert self.reader is not None
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        fields = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        if fields.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                parts.append(await self.reader.readexactly(size))
                if await self.reader.readexactly(2) != b"\r\n":
                    raise BrokenError("a chunk without its end")
            if await self.reader.readexactly(2) != b"\r\n":
                raise BrokenError("no end of the chunked body")
            body = b"".join(parts)
        else:
            body = await self.reader.readexactly(int(fields["content-length"]))
        return Answer(int(status.split()[1]), fields, body)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass
class Tally:
    """How many requests of each kind were answered whole, and what went wrong with the others."""

    good: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    longest: float = 0.0
    """Seconds that the slowest answer took."""


class Load:
    """Asks from the beginning of the with statement to its end, where every request is waited for."""

    def __init__(
        self,
        port: int,
        key: str,
        trust: ssl.SSLContext | None,
        *,
        streams: int = 8,
        posts: int = 4,
        kept: int = 6,
        idle: int = 6,
        fresh: int = 4,
    ) -> None:
        self.tally = Tally()
        self._new = lambda: Client(port, key, trust)
        self._numbers = itertools.count(1)
        self._ended: set[str] = set()
        self._begun = time.monotonic()
        kinds: list[tuple[Callable[[], Coroutine[Any, Any, None]], int]] = [
            (lambda: self._repeat("stream", "POST", "/api/chat", 400, 0.0), streams),
            (lambda: self._repeat("post", "POST", "/api/show", 100_000, 0.03), posts),
            (lambda: self._repeat("kept", "GET", "/api/tags", 0, 0.004), kept),
            (lambda: self._repeat("idle", "POST", "/api/show", 30, 0.4), idle),
            (lambda: self._repeat("fresh", "POST", "/api/show", 30, 0.02, keep=False), fresh),
        ]
        self._clients = [make for make, count in kinds for _ in range(count)]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended |= KINDS
        self._thread.join()

    def end_streams(self) -> None:
        """From now on everything is short, so that nothing keeps a proxy that is draining."""
        self._ended.add("stream")

    async def _run(self) -> None:
        await asyncio.gather(*(client() for client in self._clients))

    async def _repeat(
        self, kind: str, method: str, path: str, size: int, pause: float, *, keep: bool = True
    ) -> None:
        client = self._new()
        padding = "y" * size
        while kind not in self._ended:
            number = next(self._numbers)
            body = json.dumps({"model": "m", "padding": padding}).encode() if size else b""
            begun = time.monotonic()
            try:
                found = await client.ask(method, path, number, body)
                expected = (
                    b"".join(line(number, part) for part in range(CHUNKS + 1))
                    if kind == "stream"
                    else short(number, len(body))
                )
                if (found.status, found.body) != (200, expected):
                    raise BrokenError(f"{found.status} {found.body[:200]!r}")
                self.tally.good[kind] += 1
            except (BrokenError, OSError, TimeoutError, asyncio.IncompleteReadError) as fault:
                at = f"{begun - self._begun:.3f} to {time.monotonic() - self._begun:.3f} s"
                self.tally.faults.append(
                    f"{kind} {number}, connection {client.opened}, {at}: {type(fault).__name__}: {fault}"
                )
                client.close()
            self.tally.longest = max(self.tally.longest, time.monotonic() - begun)
            if not keep:
                client.close()
            await asyncio.sleep(pause)
        self.tally.connections += client.opened
        with contextlib.suppress(OSError):
            client.close()
