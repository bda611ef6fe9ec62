"""A fake Ollama that costs next to nothing, so that the proxies are what is measured.

`python -m bench.upstream` prints its ports, plain and TLS, as one line of JSON, and serves until it is ended:

    GET  /api/version         {"version":"0.24.0"}
    GET  /api/tags?bytes=N    a body of N bytes with a Content-Length, as fast as it is read
    POST /api/chat            NDJSON chunks, chunked, with a pause before each; all at once, in one line,
                              where the body begins with a model and "stream": false
    POST /api/blobs/…         reads and discards any Content-Length; 201

It believes what it is sent: only loads and proxies of this benchmark talk to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from typing import cast

import uvloop

MARK = b"~"
"""Stands once in every streamed chunk and nowhere in framing, so that a load can count chunks by it."""

_VERSION_BODY = b'{"version":"0.24.0"}'
_VERSION = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_VERSION_BODY), _VERSION_BODY)
)
_LINE = (
    b'{"model":"llama3.2:latest","created_at":"2026-01-01T00:00:00.000000Z",'
    b'"message":{"role":"assistant","content":" a%b"},"done":%b}\n'
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_NOT_STREAMED = b'"stream": false'
_CHAT_BODY = _LINE % (b"", b'true,"done_reason":"stop","prompt_eval_count":9,"eval_count":150')
_CHAT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_CHAT_BODY.strip()), _CHAT_BODY.strip())
)
_CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
_LARGE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
)
_ERROR = b"HTTP/1.1 %d Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BLOCK = b" " * 262_144


def _chunk(line: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(line), line)


_CHUNK = _chunk(_LINE % (MARK, b"false"))
_LAST_CHUNK = _chunk(_LINE % (MARK, b'true,"done_reason":"stop","prompt_eval_count":9,"eval_count":150'))


class Wheel:
    """Streams in slots; one timer turns from slot to slot and writes a chunk to every stream there.

    One timer for all keeps the pauses cheap; several slots keep the chunks from coming in one burst.
    """

    SLOTS = 10

    def __init__(self, chunks: int, pause: float) -> None:
        self._chunks = chunks
        self._tick = pause / self.SLOTS
        self._slots: list[dict[Exchange, int]] = [{} for _ in range(self.SLOTS)]
        self._next = 0
        self._added = 0
        self._streams = 0

    def add(self, exchange: Exchange) -> None:
        self._slots[self._added % self.SLOTS][exchange] = self._chunks
        self._added += 1
        self._streams += 1
        if self._streams == 1:
            loop = asyncio.get_running_loop()
            loop.call_later(self._tick, self._turn, loop.time() + self._tick)

    def remove(self, exchange: Exchange) -> None:
        for slot in self._slots:
            if slot.pop(exchange, None) is not None:
                self._streams -= 1

    def _turn(self, due: float) -> None:
        slot = self._slots[self._next]
        self._next = (self._next + 1) % self.SLOTS
        for exchange, left in list(slot.items()):
            if left > 1:
                slot[exchange] = left - 1
                exchange.write(_CHUNK)
            else:
                del slot[exchange]
                self._streams -= 1
                exchange.write(_LAST_CHUNK + b"0\r\n\r\n")
        if self._streams:
            asyncio.get_running_loop().call_at(due + self._tick, self._turn, due + self._tick)


class Exchange(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._head = b""
        self._discard = 0  # bytes of a request body still to come
        self._answer = b""  # what follows them
        self._large = 0  # bytes of a large response body still to be written
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        self._wheel.remove(self)
        self._large = 0

    def data_received(self, data: bytes) -> None:
        if self._discard:
            self._discarded(data)
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            head, _, rest = self._head.partition(b"\r\n\r\n")
            self._head = b""
            self._request(head, rest)

    def _request(self, head: bytes, rest: bytes) -> None:
        if head.startswith(b"GET /api/version "):
            self.write(_VERSION)
        elif head.startswith(b"GET /api/tags?bytes="):
            self._large = int(head[20 : head.index(b" ", 20)])
            self.write(_LARGE_HEAD % self._large)
            self._write_large()
        elif head.startswith((b"POST /api/chat ", b"POST /api/blobs/")):
            length = _content_length(head)
            if length is None:
                self._transport.write(_ERROR % 411)
                self._transport.close()
                return
            self._discard = length
            self._answer = _STREAM_HEAD if head.startswith(b"POST /api/chat ") else _CREATED
            self._discarded(rest)
        elif head.startswith(
            (b"GET / ", b"HEAD / ", b"GET /api/tags ", b"GET /api/status ", b"GET /api/ps ")
        ):
            self.write(_VERSION if head.startswith(b"GET") else _VERSION.partition(b"{")[0])
        else:
            self._transport.write(_ERROR % 404)
            self._transport.close()

    def _discarded(self, data: bytes) -> None:
        if self._answer is _STREAM_HEAD and _NOT_STREAMED in data[:64]:
            self._answer = _CHAT
        self._discard -= len(data)
        if self._discard == 0:
            self.write(self._answer)
            if self._answer is _STREAM_HEAD:
                self._wheel.add(self)

    def _write_large(self) -> None:
        while self._large and not self._paused:
            size = min(self._large, len(_BLOCK))
            self._large -= size
            self.write(_BLOCK if size == len(_BLOCK) else _BLOCK[:size])

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_large()


def _content_length(head: bytes) -> int | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None


async def serve(chunks: int, pause: float, context: ssl.SSLContext) -> None:
    """Listen on two free loopback ports, say which, and serve until cancelled."""
    loop = asyncio.get_running_loop()
    wheel = Wheel(chunks, pause)
    plain = await loop.create_server(lambda: Exchange(wheel), "127.0.0.1", 0, backlog=1024)
    tls = await loop.create_server(lambda: Exchange(wheel), "127.0.0.1", 0, backlog=1024, ssl=context)
    ports = {name: server.sockets[0].getsockname()[1] for name, server in (("plain", plain), ("tls", tls))}
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake Ollama for the benchmark.")
    parser.add_argument("--chunks", type=int, default=150, help="chunks of a stream")
    parser.add_argument("--pause", type=float, default=0.03, help="seconds before each chunk")
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--private-key", required=True)
    given = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.certificate, given.private_key)
    uvloop.run(serve(given.chunks, given.pause, context))


if __name__ == "__main__":
    main()
