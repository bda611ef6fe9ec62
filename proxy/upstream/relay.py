"""One exchange between a client and Ollama: bytes both ways, unchanged, piece by piece.

Ollama's data_received writes to the client's transport and the client's to Ollama's; the coroutine only
waits for the end. Each side's full buffer stops the reading of the other. Whichever side leaves, the
other is told at once.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from proxy.errors import Dialect, ProxyError, error_body
from proxy.policy.routes import Route
from proxy.server.drive import Ended
from proxy.server.exchange import Exchange
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.headers import Fields, client_head, upstream_head
from proxy.upstream.pool import Pool

REPLAYABLE_BODY = 64 * 1024
"""Bytes of a request body kept until the first byte of the response, in case a dead connection was reused."""

_HAS_END = re.compile(
    rb'"done":true|"status":"success"'
    rb"|(?:^|\n)(?:data: \[DONE\]|event: message_stop|event: response\.completed)"
)
_NO_BODY = frozenset({204, 304})

TAIL = 2048
"""Bytes at least that are kept of the end of an answer, to read its usage from."""


class Relay:
    """Implements both sides' callbacks: `server.exchange.Peer` and `upstream.connection.Receiver`.

    After `run`: ``status`` is what the client was sent (0 for nothing), ``sent`` counts body bytes, an error
    line of ours included, ``forwarded_at`` and ``first_byte_at`` are of `time.monotonic`, ``failure`` is the
    kind of an upstream failure and ``left_in`` the phase in which the client left, where either happened.
    ``answered`` says that a client which left had already read the end of its answer, ``cut_off`` that `cut`
    ended it.
    Of an answer that has usage, ``first`` are its first bytes, ``lines`` counts the line ends, and
    ``content_type`` is what it said to be.
    ``body_taken`` is called when Ollama has taken the body: what was held of it is not needed any more.
    """

    __slots__ = (
        "_body_taken",
        "_chunked",
        "_connecting",
        "_connection",
        "_done",
        "_error",
        "_exchange",
        "_last",
        "_metered",
        "_ndjson",
        "_out",
        "_pool",
        "_previous",
        "_replay",
        "_replay_size",
        "_request_sent",
        "_response_paused",
        "_retry",
        "_reused",
        "_route",
        "_transport",
        "answered",
        "content_type",
        "cut_off",
        "failure",
        "first",
        "first_byte_at",
        "forwarded_at",
        "left_in",
        "lines",
        "sent",
        "status",
    )

    def __init__(
        self, exchange: Exchange, route: Route, pool: Pool, body_taken: Callable[[], None] | None = None
    ) -> None:
        self._exchange = exchange
        self._transport = exchange.connection.transport
        self._route = route
        self._metered = route.metered
        self._pool = pool
        self._body_taken = body_taken
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Future[UpstreamConnection] | None = None
        self._done = Ended()
        self._error: ProxyError | None = None
        self._reused = False
        self._retry = False
        self._replay: list[bytes] | None = None
        self._replay_size = 0
        self._request_sent = False
        self._response_paused = False
        self._out: list[bytes] = []
        self._chunked = False
        self._ndjson = False
        self._last = self._previous = b""
        self.content_type = self.first = b""
        self.lines = 0
        self.status = 0
        self.sent = 0
        self.forwarded_at = 0.0
        self.first_byte_at = 0.0
        self.failure = ""
        self.left_in = ""
        self.answered = False
        self.cut_off = False
        exchange.peer = self

    async def run(self, authority: bytes) -> None:
        """Forward the request and pass the response on, to the end or to whatever ends it sooner.

        ``authority`` is what Ollama wants as Host. Raises ProxyError while the client has been sent
        nothing: ``upstream_unreachable``, ``upstream_protocol_error``, or what `client_failed` and `cut`
        were given.
        """
        exchange = self._exchange
        head = upstream_head(
            exchange.method, exchange.target, exchange.fields, authority, exchange.joined(b"connection")
        )
        connection = self._pool.take()
        self._reused = connection is not None
        if self._reused and self._route.repeatable:
            self._replay = []
        while True:
            if connection is None:
                connection = await self._connect()
            if connection is None:
                break
            self._begin(connection, head)
            await self._done
            if not self._retry:
                break
            self._reused = self._retry = False
            connection = None
        if self._error is not None and not self.status:
            raise self._error

    async def _connect(self) -> UpstreamConnection | None:
        """A fresh connection, or None where the exchange ended meanwhile."""
        self._connecting = asyncio.ensure_future(self._pool.connect())
        try:
            connection = await self._connecting
        except asyncio.CancelledError:
            if not self._ended:
                raise
            return None
        except OSError:
            self.failure = "connect"
            raise ProxyError(
                "upstream_unreachable",
                "Ollama cannot be reached: the operator should check that it runs at upstream.url",
            ) from None
        finally:
            self._connecting = None
        if self._ended:
            connection.abort()
            return None
        return connection

    @property
    def _ended(self) -> bool:
        return bool(self.left_in) or self._error is not None

    def _begin(self, connection: UpstreamConnection, head: bytes) -> None:
        exchange = self._exchange
        self._done = Ended()
        if not connection.alive or connection.transport.is_closing():  # it was closed as soon as it was open
            self.response_failed("reset", answered=False)
            return
        self._connection = connection
        if not self.forwarded_at:
            self.forwarded_at = time.monotonic()
        connection.begin(self)
        connection.transport.write(head)
        if exchange.flowing:  # a second attempt: what the first one was given goes out again
            for data in self._replay or ():
                self._forward(connection, data)
            if exchange.request_complete:
                self.body_end()
            exchange.connection.resume_body()
        else:
            exchange.accept_body(self)
        if exchange.connection.write_paused:
            self.pause_response()

    def cut(self, error: ProxyError) -> None:
        """End the exchange from outside: with ``error`` where nothing was sent, else by breaking it off."""
        self.cut_off = True
        self._give_up(error)

    # Peer: what the client does.

    def body(self, data: bytes) -> None:
        connection = self._connection
        if self._replay is not None:
            self._replay_size += len(data)
            if self._replay_size <= REPLAYABLE_BODY or connection is None:
                self._replay.append(data)
            else:
                self._replay = None
        if connection is not None:
            self._forward(connection, data)
        elif self._replay_size > REPLAYABLE_BODY:
            self._exchange.connection.pause_body()

    def _forward(self, connection: UpstreamConnection, data: bytes) -> None:
        if self._exchange.head.chunked:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            connection.transport.write(data)

    def body_end(self) -> None:
        if self._connection is not None:
            if self._exchange.head.chunked:
                self._connection.transport.write(b"0\r\n\r\n")
            self._request_sent = True
            if self._connection.transport.get_write_buffer_size() <= REPLAYABLE_BODY:
                self._tell_taken()

    def _tell_taken(self) -> None:
        if self._body_taken is not None:
            self._body_taken()
            self._body_taken = None

    def client_left(self) -> None:
        if self.status and _HAS_END.search(self.tail):
            self.answered = True
        elif self.status:
            self.left_in = "streaming"
        else:
            self.left_in = "waiting" if self._exchange.request_complete else "upload"
        self._drop_upstream()
        self._resolve()

    def client_failed(self, error: ProxyError) -> None:
        self._exchange.close = True
        self._give_up(error)

    def pause_response(self) -> None:
        if self._connection is not None:
            self._response_paused = True
            self._connection.transport.pause_reading()

    def resume_response(self) -> None:
        if self._response_paused and self._connection is not None:
            self._connection.transport.resume_reading()
        self._response_paused = False

    @property
    def tail(self) -> bytes:
        """The end of the answer, as far as it came: `TAIL` bytes at least, where there are as many."""
        return self._previous + self._last

    # Receiver: what Ollama does.

    def response_head(self, status: int, reason: bytes, fields: Fields) -> bool:
        exchange = self._exchange
        self._replay = None
        if status < 200:
            if status != 100:  # the proxy has answered the client's expectation itself
                exchange.connection.transport.write(
                    client_head(status, reason, fields, b"\r\n", body=False).data
                )
            return True
        self._tell_taken()
        body = exchange.method != "HEAD" and status not in _NO_BODY
        own = b"X-Request-Id: %b\r\n%b" % (exchange.request_id, exchange.own_fields)
        if self._route.dialect is Dialect.ANTHROPIC:
            own += b"request-id: %b\r\n" % exchange.request_id
        if exchange.must_close():
            own += b"Connection: close\r\n"
        head = client_head(status, reason, fields, own + b"\r\n", body=body)
        exchange.response_started = True
        self.status = status
        self._chunked = head.chunked
        self._ndjson = head.content_type.startswith(b"application/x-ndjson")
        self.content_type = head.content_type
        self._out.append(head.data)
        return body

    def response_body(self, data: bytes) -> None:
        if not self.sent:
            self.first_byte_at = time.monotonic()
        self.sent += len(data)
        if self._metered:
            self.lines += data.count(b"\n")
            if len(self.first) < TAIL:
                self.first += data[:TAIL]
        if len(self._last) < TAIL:
            self._last += data
        else:
            self._previous, self._last = self._last, data
        if self._chunked:
            self._out.append(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._out.append(data)

    def response_pause(self) -> None:
        out = self._out
        if out:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def response_end(self, *, reusable: bool) -> None:
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.response_pause()
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._response_paused:
                connection.transport.resume_reading()
            if reusable and self._request_sent and not connection.transport.get_write_buffer_size():
                self._pool.give_back(connection)
            else:
                connection.abort()
        self._exchange.finish()
        self._resolve()

    def response_failed(self, kind: str, *, answered: bool) -> None:
        self._connection = None
        if not answered and self._reused and self._replay is not None:
            self._retry = True
            self._request_sent = False
            self._resolve()
            return
        self.failure = kind
        if kind == "reset":
            error = ProxyError(
                "upstream_unreachable",
                "Ollama closed the connection: try again, and see Ollama's log if it stays",
            )
        else:
            error = ProxyError(
                "upstream_protocol_error",
                "Ollama's answer broke off or is not HTTP: try again, and see Ollama's log if it stays",
            )
        self._give_up(error)

    def pause_request(self) -> None:
        self._exchange.connection.pause_body()

    def resume_request(self) -> None:
        if self._request_sent:
            self._tell_taken()
        self._exchange.connection.resume_body()

    # Endings

    def _give_up(self, error: ProxyError) -> None:
        if self._error is not None or self._exchange.finished:
            return
        self._error = error
        self._drop_upstream()
        if self.status:
            if self._ndjson and self._chunked:
                # Ollama's own clients take a torn stream for a complete one, but they read an error line.
                line = error_body(error.code, error.message, Dialect.NATIVE)
                if self._last[-1:] not in (b"", b"\n"):
                    line = b"\n" + line
                self.sent += len(line)
                self._out.append(b"%x\r\n%b\r\n" % (len(line), line))
            self.response_pause()
            self._exchange.abort()
        self._resolve()

    def _drop_upstream(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._connecting is not None:
            self._connecting.cancel()

    def _resolve(self) -> None:
        self._done.end()
