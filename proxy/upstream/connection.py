"""One HTTP/1.1 connection to Ollama: carries requests, parses responses, and says when it dies.

The parser is httptools' (llhttp, strict): a response with two framings, a broken chunk or a folded field
is an error, never a guess. One `Receiver` is served at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools

from proxy.upstream.headers import Fields

MAX_RESPONSE_HEAD = 256 * 1024
"""Bytes that a response head may take."""


_VERSIONS = ("1.1", "1.0")


class Receiver(Protocol):
    """Whoever sent the request that a connection is answering."""

    def response_head(self, status: int, reason: bytes, fields: Fields) -> bool:
        """A head, 1xx included. Returns whether a body may follow it (none does in answer to HEAD)."""

    def response_body(self, data: bytes) -> None:
        """A piece of the body: a chunk as Ollama wrote it, or what of it has arrived."""

    def response_pause(self) -> None:
        """All that has arrived was told: a good moment to pass it on."""

    def response_end(self, *, reusable: bool) -> None:
        """The response is complete; ``reusable`` says whether the connection could serve another request."""

    def response_failed(self, kind: str, *, answered: bool) -> None:
        """It broke: ``reset``, ``truncated`` or ``malformed``; ``answered`` says that a byte had come."""

    def pause_request(self) -> None:
        """Ollama takes the request body more slowly than it comes."""

    def resume_request(self) -> None:
        """Ollama has taken what was waiting."""


class UpstreamConnection(asyncio.Protocol):
    """``lost`` is called once, when the connection is gone, so that the pool forgets it at once."""

    def __init__(self, lost: Callable[[UpstreamConnection], None]) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.alive = False
        self.idle_since = 0.0
        self._lost = lost
        self._receiver: Receiver | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._expect_response()

    def _expect_response(self) -> None:
        self._fields: Fields = []
        self._reason = b""
        self._head_size = 0
        self._in_head = True
        self._has_body = False
        self._complete = False
        self._reusable = True
        self._bodiless = False

    def begin(self, receiver: Receiver) -> None:
        """Serve ``receiver`` until its response ended, or failed."""
        self._receiver = receiver

    def abort(self) -> None:
        """Close at once; nobody is told any more. Ollama stops generating when its client is gone."""
        self._receiver = None
        self.alive = False
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.alive = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._lost(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        if exc is None and self._ends_with_connection():
            receiver.response_end(reusable=False)
        elif self._in_head:
            answered = self._head_size > 0
            receiver.response_failed("truncated" if answered else "reset", answered=answered)
        else:
            receiver.response_failed("truncated" if exc is None else "reset", answered=True)

    def eof_received(self) -> None:
        self.alive = False

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_request()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_request()

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:  # an answer that nobody asked for
            self.abort()
            return
        if self._in_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._malformed(receiver)
                return
            self._reusable = False
        if self._in_head and self._head_size > MAX_RESPONSE_HEAD:
            self._malformed(receiver)
            return
        if not self._complete:
            receiver.response_pause()
        else:
            self._receiver = None
            reusable = self._reusable and self.alive
            if self._bodiless:
                self._reset()
            else:
                self._expect_response()
            receiver.response_end(reusable=reusable)

    def _ends_with_connection(self) -> bool:
        """Whether the body has neither length nor chunks, so that it ends with us (RFC 9112 section 6.3)."""
        framing = (b"content-length", b"transfer-encoding")
        return self._has_body and not any(name.lower() in framing for name, _ in self._fields)

    def _malformed(self, receiver: Receiver) -> None:
        receiver.response_pause()
        self.abort()
        receiver.response_failed("malformed", answered=True)

    # httptools

    def on_message_begin(self) -> None:
        if self._complete:
            self._reusable = False  # more than one answer to one request

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after the body it is a trailer, and dropped
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete or self._receiver is None:
            return
        if self._parser.get_http_version() not in _VERSIONS:
            raise ValueError("not HTTP/1")
        status = self._parser.get_status_code()
        if status == 101:
            raise ValueError("an upgrade that nobody asked for")
        fields = self._fields
        if status < 200:
            self._receiver.response_head(status, self._reason, fields)
            return
        self._in_head = False
        self._has_body = self._receiver.response_head(status, self._reason, fields)
        if not self._has_body:
            self._bodiless = self._complete = True
            self._reusable = not any(
                name.lower() == b"connection" and b"close" in value.lower() for name, value in fields
            )

    def on_body(self, data: bytes) -> None:
        if self._complete or self._receiver is None:
            self._reusable = False
        else:
            self._receiver.response_body(data)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self._in_head:  # the end of a 1xx; the response proper follows
            self._expect_response()
            return
        self._complete = True
        self._reusable = self._parser.should_keep_alive()
