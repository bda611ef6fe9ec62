"""A client's connection: uvicorn's protocol with the guards that it lacks and a direct way to the client.

Read it as a small machine. ``reading`` says where the parser stands in the request stream, ``exchange`` is
the request being answered; requests that a client pipelines wait in ``waiting`` (RFC 9112 section 9.3.2).
`tick` is called for every connection by one sweep, instead of a timer per request.
"""

from __future__ import annotations

import asyncio
import fcntl
import ssl
import struct
import termios
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import httptools
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from proxy.errors import Dialect, ProxyError, render
from proxy.server.drive import Drive
from proxy.server.exchange import EXTENSION, HELD_BODY, Exchange
from proxy.server.head import head_too_large, malformed, not_http, read_head
from proxy.server.shared import Shared

IDLE, HEAD, BODY, REFUSED, LINGERING = range(5)

LINGER_QUIET = 2.0
"""Seconds without a byte after which a lingering connection is closed."""

LINGER_TOTAL = 10.0
"""Seconds that a lingering connection may last in all."""

FRAMING_PER_BYTE = 16
"""Bytes of chunk framing allowed for each byte of a chunked body."""

ANSWERS_A_TURN = 16
"""Pipelined requests of one connection that are begun in one turn of the event loop; others want theirs too.
Reading pauses while more than these wait."""

MAX_PIPELINED = 1024
"""Requests that may wait on one connection; one read can hold thousands. What comes after them is refused."""


class _NotUsedError(RuntimeError):
    """The exchange in the scope's extensions is how requests are read and answered here."""


async def _receive() -> Any:
    raise _NotUsedError


async def _send(message: Any) -> None:
    raise _NotUsedError


class ClientConnection(HttpToolsProtocol):
    """One TCP or TLS connection of a client.

    ``app`` gets an ASGI scope whose extensions hold the `Exchange`; receive and send are not used, since
    the response goes straight from the upstream's connection to this one's transport.

    ``certificate`` are the subject's CN of the client's certificate, which the handshake has verified, and
    the unix second of its end; the CN is empty where there is none or several of it.
    """

    def __init__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: Shared,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.shared = shared
        self.reading = IDLE
        self.exchange: Exchange | None = None
        self.incoming: Exchange | None = None
        self.chunked: Exchange | None = None
        self.waiting: deque[Exchange] = deque()
        self.refusal: ProxyError | None = None
        self.client_address = ""
        self.certificate: tuple[str, float] | None = None
        self.served = 0
        self.held = 0  # bytes of bodies that nobody wants yet
        self.read_size = 0
        self.read_was_idle = False
        self.head_least = self.head_most = 0  # bounds of the size of the head that is being read
        self.unsent = 0  # bytes that the client had not taken at the last tick, where any wait for it
        self.unsent_since = 0.0
        self.paused = False
        self.write_paused = False
        self.starting = False
        # The TLS handshake counts towards the header time-out, so the clock starts at accept.
        self.since = self.last_data = time.monotonic()

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.last_data = time.monotonic()  # the end of the TLS handshake
        if self.client is not None:
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])  # one spelling each
            self.client_address = self.client[0]
        if self.shared.client_certificates:
            self.certificate = _name_and_end(transport.get_extra_info("peercert"))
        self.parser = httptools.HttpRequestParser(self)  # strict, unlike uvicorn's own
        self.connection_scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": self.scheme,
            "root_path": "",
            "client": self.client,
            "server": self.server,
        }
        if self.shared.open_connections > self.shared.max_connections:
            self._refuse(
                ProxyError(
                    "queue_full",
                    "too many connections: try again in a moment",
                    headers=((b"Retry-After", b"1"),),
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.shared.closed()
        self.shared.unwatch(self)
        self._leave()
        self.parser = None  # type: ignore[assignment]  # it refers to us, and we to it

    def eof_received(self) -> None:
        self._leave()

    def _leave(self) -> None:
        exchange, self.exchange = self.exchange, None
        self.incoming = self.chunked = None
        self.waiting.clear()
        if exchange is not None and not exchange.finished:
            exchange.gone = True
            exchange.finished = True
            if exchange.peer is not None:
                exchange.peer.client_left()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None and self.exchange.peer is not None:
            self.exchange.peer.pause_response()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is None:
            self._next()
        elif self.exchange.peer is not None:
            self.exchange.peer.resume_response()

    def pause_body(self) -> None:
        """Stop reading; the connection is watched, as a paused socket does not tell that its client left."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()
            self.shared.watch(self)

    def resume_body(self) -> None:
        if self.paused and self.held <= HELD_BODY and len(self.waiting) <= ANSWERS_A_TURN:
            self.paused = False
            self.last_data = time.monotonic()
            self.shared.unwatch(self)
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def peer_vanished(self) -> None:
        """The watch found the client gone while reading was paused."""
        self._leave()
        self.transport.abort()

    # Requests

    def data_received(self, data: bytes) -> None:
        self.last_data = time.monotonic()
        reading = self.reading
        if reading >= REFUSED:
            return
        size = self.read_size = len(data)
        self.read_was_idle = reading == IDLE
        if reading == HEAD:
            self.head_least += size
            self.head_most += size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # CONNECT; an Upgrade field has been refused with the head.
            if self.reading != REFUSED:
                self._refuse(
                    malformed("the request target must be a path that starts with '/' (origin-form)")
                )
        except httptools.HttpParserError as error:
            if self.reading != REFUSED:
                cause = error.__context__
                self._refuse(
                    cause
                    if isinstance(cause, ProxyError)
                    else not_http(str(error), in_body=self.reading == BODY)
                )
        else:
            if self.chunked is not None:
                self._weigh_chunks(self.chunked, size)
            # Only now, so that a small body that came with its head is known to be there.
            if self.waiting and self.exchange is None:
                self._next()
            if self.reading == HEAD and self.head_least > self.shared.max_header_bytes:
                self._refuse(head_too_large(self.url, self.headers, self.shared.max_header_bytes))

    def _weigh_chunks(self, exchange: Exchange, size: int) -> None:
        """Refuse a chunked body whose framing outweighs it: chunk extensions or trailers without end.

        Chunks of one byte weigh six; no sender needs more than ``FRAMING_PER_BYTE`` beside a head's worth.
        """
        exchange.wire_bytes += size
        if exchange.wire_bytes > self.shared.max_header_bytes * 2 + FRAMING_PER_BYTE * exchange.received:
            if exchange.finished or self.reading >= REFUSED:
                return
            if self.incoming is None and exchange is self.exchange:
                return  # it is complete, and with Ollama already
            self.incoming = exchange
            self._refuse(
                malformed("the chunked body has too much framing: send larger chunks, no extensions")
            )

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.reading = HEAD
        self.head_most = self.read_size
        self.head_least = self.read_size if self.read_was_idle else 0
        self.read_was_idle = False
        if self.served or self.incoming is not None:
            self.since = self.last_data

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reading == HEAD:  # a trailer comes in BODY, and is dropped
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.head_most > self.shared.max_header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.shared.max_header_bytes:
                raise head_too_large(self.url, self.headers, self.shared.max_header_bytes)
        parser = self.parser
        head = read_head(parser.get_http_version(), self.url, self.headers)
        exchange = Exchange(
            self,
            parser.get_method().decode("ascii"),
            self.url,
            self.headers,
            head,
            self.shared.request_id(head.single.get(b"x-request-id")),
            parser.should_keep_alive(),
            self.last_data,
        )
        self.incoming = exchange
        self.chunked = None
        if head.chunked:
            self.chunked = exchange
            exchange.wire_bytes = -self.read_size  # what this read holds of others is not its weight
        self.reading = BODY
        if len(self.waiting) >= MAX_PIPELINED:
            self.incoming = None
            raise malformed(f"more than {MAX_PIPELINED} requests were pipelined: wait for answers in between")
        self.waiting.append(exchange)
        if len(self.waiting) > ANSWERS_A_TURN:
            self.pause_body()

    def on_body(self, body: bytes) -> None:
        if self.incoming is not None:
            self.incoming.body_received(body)

    def on_message_complete(self) -> None:
        self.reading = IDLE
        self.since = self.last_data
        exchange, self.incoming = self.incoming, None
        if exchange is not None:
            exchange.body_complete()

    def _start(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.served += 1
        self.last_data = time.monotonic()  # a body that waited for its turn may begin now
        head = exchange.head
        scope = self.connection_scope.copy()
        scope["method"] = exchange.method
        scope["path"] = head.path.decode("ascii", "replace")
        scope["raw_path"] = head.path
        scope["query_string"] = head.query
        scope["headers"] = exchange.fields
        scope["extensions"] = {EXTENSION: exchange}
        Drive(self.app(scope, _receive, _send)).resume()

    # Endings

    def exchange_finished(self, exchange: Exchange) -> None:
        """Called by the exchange when its response is written whole."""
        if exchange is not self.exchange:
            return
        self.exchange = None
        if self.transport.is_closing():
            return
        if exchange.close:
            # Whatever else the client sent must not turn our answer into a connection reset.
            if exchange.request_complete and not self.waiting and self.reading == IDLE:
                self.transport.close()
            else:
                self._linger()
        else:
            self._next()

    def _next(self) -> None:
        """Answer what waits, one after the other; with nothing left, what was refused after it."""
        if self.starting:  # an answer that was ready at once: the loop below goes on
            return
        self.starting = True
        begun = 0
        while self.waiting and self.exchange is None and not self.write_paused and self.reading != LINGERING:
            if begun == ANSWERS_A_TURN:
                self.loop.call_soon(self._next)
                break
            begun += 1
            self._start(self.waiting.popleft())
        self.starting = False
        if self.exchange is not None or self.waiting:
            return
        if self.reading == REFUSED and self.refusal is not None:
            self._answer_refusal(self.refusal)
        elif self.reading != LINGERING:
            self.since = time.monotonic()
            if self.paused:
                self.resume_body()

    def cut(self) -> None:
        """Close once what is written has gone out; the unfinished framing tells the client."""
        self.exchange = None
        self._linger(eof=False)
        self.transport.close()

    def _refuse(self, error: ProxyError) -> None:
        """Read nothing more; answer when the requests before this one have had their answers."""
        self.reading = REFUSED
        self.refusal = error
        incoming, self.incoming = self.incoming, None
        if incoming is not None:  # its body broke off: it cannot be finished
            if incoming in self.waiting:
                self.waiting.remove(incoming)
            elif incoming.finished:
                self._linger()
                return
            elif incoming.peer is not None:
                incoming.peer.client_failed(error)
                return
        if self.exchange is None:
            self._next()

    def _answer_refusal(self, error: ProxyError) -> None:
        request_id = self.shared.request_id(None)
        origin = b",".join(value for name, value in self.headers or () if name == b"origin")
        answer = render(
            error,
            Dialect.NATIVE,
            request_id,
            date=self.shared.date,
            close=True,
            head_only=False,
            own_fields=self.shared.cors_fields(origin),
        )
        self.transport.write(answer.data)
        self.shared.refused(self, error, request_id, answer.body_length)
        self._linger()

    def _linger(self, *, eof: bool = True) -> None:
        """Read and drop for a bounded time, so that the answer arrives before any reset (RFC 9112 9.6)."""
        self.reading = LINGERING
        self.waiting.clear()
        self.since = self.last_data = time.monotonic()
        if self.paused:
            self.paused = False
            self.shared.unwatch(self)
            self.transport.resume_reading()
        if eof and self.transport.can_write_eof():
            self.transport.write_eof()

    def lasts(self) -> bool:
        """Whether something is still to be read or written; what has been closed on our side is over."""
        return not self.transport.is_closing() or self.transport.get_write_buffer_size() > 0

    def close_if_quiet(self, now: float, quiet: float) -> None:
        """Close where nothing is asked, and has not been for ``quiet`` seconds."""
        if (
            self.exchange is None
            and self.reading == IDLE
            and not self.waiting
            and now - max(self.since, self.last_data) > quiet
            and not _in_kernel(self.transport, termios.FIONREAD)  # where we were slow, it may wait there
        ):
            self.transport.close()

    def tick(self, now: float) -> None:
        """Apply the time-outs; called by the listener's sweep."""
        shared = self.shared
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            unsent += _in_kernel(self.transport, termios.TIOCOUTQ)
        if unsent != self.unsent:
            self.unsent = unsent
            self.unsent_since = now
        elif unsent and now - self.unsent_since > shared.idle_timeout:
            self.transport.abort()  # slow is fine while it moves; holding a model without reading is not
            return
        if self.reading == LINGERING:
            if unsent:
                return  # the answer itself is still on its way
            if now - self.last_data > LINGER_QUIET or now - self.since > LINGER_TOTAL:
                self.transport.abort()
        elif self.reading == HEAD:
            if now - self.since > shared.header_timeout:
                limit = f"{shared.header_timeout:g} s"
                self._refuse(
                    malformed(f"the request head was not complete within {limit}: send it faster", 408)
                )
        elif self.reading == BODY:
            if self.exchange is not None and self.incoming is not self.exchange:
                return  # its turn has not come
            if not self.paused and now - self.last_data > shared.idle_timeout:
                self._body_stalled()
        elif self.exchange is None and now - self.since > (
            shared.idle_timeout if self.served else shared.header_timeout
        ):
            self.transport.close()

    def _body_stalled(self) -> None:
        exchange = self.incoming
        if exchange is None or exchange.finished or exchange is not self.exchange or exchange.peer is None:
            self.transport.abort()
        else:
            exchange.peer.client_failed(
                malformed("the request body stopped coming: send it without long pauses", 408)
            )


def _name_and_end(certificate: Mapping[str, Any] | None) -> tuple[str, float] | None:
    """CN and end of a certificate in the form of ssl.SSLSocket.getpeercert; None without one."""
    if not certificate:
        return None
    names = [str(value) for rdn in certificate["subject"] for name, value in rdn if name == "commonName"]
    try:
        ends = float(ssl.cert_time_to_seconds(certificate["notAfter"]))
    except ValueError:  # a date that only OpenSSL understands
        ends = 0.0
    return names[0] if len(names) == 1 else "", ends


def _in_kernel(transport: asyncio.Transport, queue: int) -> int:
    """Bytes that the kernel keeps: FIONREAD of the client's for us, TIOCOUTQ of ours for the client, tcp(7).

    The latter because the kernel's buffer is megabytes and tells us of room only when a third of it is free,
    so a slow client moves here long before it moves in ours.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), queue, b"\0" * 4))
    return int(size)
