"""One connection of a client, and what it records of each exchange, to the byte."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bench.load.target import client_context

KEPT = 64 * 1024
"""Bytes of an answer's body that are kept, to read its usage from."""

_PATIENCE = 60.0
"""Seconds that an answer may take in all; what is later counts as lost."""

_CONTEXT = client_context()


@dataclass(slots=True)
class Seen:
    """What a client did and saw. ``route`` and ``method`` are those of the metrics.

    ``expected`` are the statuses that may come while Ollama is well; ``forwarded`` says that Ollama is asked,
    ``revocable`` that the key may be revoked meanwhile. ``upload`` counts bytes of the body that were
    written, ``got`` those of the answer's body. ``end`` is `complete`, `torn` (the answer broke off), `left`
    (by the client, in the phase ``left_in``) or `nothing` (no answer came). ``tokens`` are input and output
    as the answer told them; None where the client cannot know. Times are of `time.monotonic`,
    ``ended_at`` alone is in unix seconds.
    """

    request_id: str
    kind: str
    method: str
    route: str
    expected: frozenset[int]
    began: float
    upload: int = 0
    status: int = 0
    got: int = 0
    end: str = "nothing"
    left_in: str = ""
    tokens: tuple[int | None, int | None] | None = None
    ended: float = 0.0
    ended_at: float = 0.0
    forwarded: bool = True
    revocable: bool = False


@dataclass(slots=True)
class Answer:
    """An answer as far as it came. ``body`` are its first bytes, up to `KEPT`, ``tail`` its last ones."""

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    got: int = 0
    body: bytes = b""
    tail: bytes = b""
    whole: bool = False
    may_continue: bool = False


class GoneError(Exception):
    """The connection ended before the answer did; what came of it is in ``answer``."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("the connection ended")
        self.answer = answer


class Connection:
    """TLS to the proxy, one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, receive_buffer: int = 0) -> Connection:
        """Raises OSError. ``receive_buffer``, bytes, keeps the kernel from reading ahead of a slow client."""
        sock = socket.socket()
        try:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            streams = await asyncio.open_connection(
                sock=sock, ssl=_CONTEXT, server_hostname="localhost", limit=max(receive_buffer, 65_536)
            )
        except BaseException:
            sock.close()
            raise
        return cls(*streams)

    async def send(self, data: bytes) -> None:
        """Raises OSError once the proxy has closed."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(
        self, method: str, stop: Callable[[Answer], bool] | None = None, pause: float = 0.0
    ) -> Answer:
        """Read one answer; ``stop`` is asked after each piece whether the client leaves now.

        ``pause`` are seconds before each piece. Raises GoneError where the connection ends first, or it
        takes a minute.
        """
        answer = Answer()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._read_head(answer)
                await self._read_body(method, answer, stop, pause)
        except (asyncio.IncompleteReadError, OSError, EOFError) as error:
            if isinstance(error, asyncio.IncompleteReadError) and answer.status:
                _take(answer, error.partial if answer.fields.get("content-length") else b"")
            raise GoneError(answer) from None
        return answer

    async def _read_head(self, answer: Answer) -> None:
        status = 100
        while 100 <= status < 200:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.split("\r\n")
            status = int(status_line.split(" ")[1])
        answer.fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        answer.status = status

    async def _read_body(
        self, method: str, answer: Answer, stop: Callable[[Answer], bool] | None, pause: float
    ) -> None:
        fields = answer.fields
        if method == "HEAD" or answer.status in (204, 304):
            answer.whole = True
        elif fields.get("transfer-encoding") == "chunked":
            while True:
                size = int(await self._reader.readuntil(b"\r\n"), 16)
                data = await self._reader.readexactly(size + 2)
                if not size:
                    break
                _take(answer, data[:-2])
                if stop is not None and stop(answer):
                    return
            answer.whole = True
        else:
            left = int(fields.get("content-length", "0"))
            while left:
                if pause:
                    await asyncio.sleep(pause)
                data = await self._reader.read(min(left, 65_536))
                if not data:
                    raise EOFError
                left -= len(data)
                _take(answer, data)
                if stop is not None and stop(answer):
                    return
            answer.whole = True
        answer.may_continue = fields.get("connection", "").lower() != "close"

    def leave(self, how: str) -> None:
        """`close` properly, `abort` without a word, or `half`: only our half, and the rest a moment later."""
        if how == "half":
            with (
                suppress(OSError),
                socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as s,
            ):
                s.shutdown(socket.SHUT_WR)
            asyncio.get_running_loop().call_later(1.0, self._writer.transport.abort)
        elif how == "abort":
            self._writer.transport.abort()
        else:
            self._writer.close()

    async def closed_by_proxy(self) -> None:
        """Wait until the proxy has closed; what it still sends is dropped."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while await self._reader.read(65_536):
                    pass
        self._writer.close()


def _take(answer: Answer, data: bytes) -> None:
    answer.got += len(data)
    if len(answer.body) < KEPT:
        answer.body += data
    answer.tail = (answer.tail + data)[-2048:] if len(data) < 2048 else data[-2048:]


@dataclass
class Book:
    """The record of a run. Ids begin with a name of the run's own."""

    prefix: str
    seen: list[Seen] = field(default_factory=list)
    count: int = 0

    def begin(self, kind: str, method: str, route: str, expected: frozenset[int]) -> Seen:
        self.count += 1
        return Seen(f"{self.prefix}-{self.count}", kind, method, route, expected, time.monotonic())

    def end(self, seen: Seen) -> None:
        seen.ended = time.monotonic()
        seen.ended_at = time.time()
        self.seen.append(seen)
