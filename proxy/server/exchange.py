"""One request and its response, as the gateway sees the client's side of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from proxy.errors import Dialect, ProxyError, render
from proxy.server.head import Head

if TYPE_CHECKING:
    from proxy.server.client_connection import ClientConnection

HELD_BODY = 64 * 1024
"""Bytes of bodies taken in on one connection before somebody wants them; reading then pauses."""

DRAINED_BODY = 64 * 1024
"""A refused body of at most this many bytes is read and dropped, so that the connection can be kept."""

EXTENSION = "ollama_proxy.exchange"
"""The key under which the ASGI scope's extensions offer the `Exchange`."""


class Peer(Protocol):
    """Whoever answers an exchange: takes the request body and is told about the client."""

    def body(self, data: bytes) -> None:
        """A piece of the request body, in order."""

    def body_end(self) -> None:
        """The request body is complete."""

    def client_left(self) -> None:
        """The client closed its connection; nothing more can be sent to it."""

    def client_failed(self, error: ProxyError) -> None:
        """The body will not come to its end: it stalled, or its framing is broken."""

    def pause_response(self) -> None:
        """The client takes the response more slowly than it comes."""

    def resume_response(self) -> None:
        """The client has taken what was waiting."""


class Exchange:
    """A request whose head has been read, and the means to answer it.

    Times are of `time.monotonic`, in seconds; ``completed_at`` is 0 until the body is complete. ``received``
    counts body bytes. ``path`` and ``target`` are
    what is to be asked of Ollama: the gateway takes from them what was meant for the proxy alone.
    ``own_fields`` are field lines of ours that the answer carries, whoever it is of.
    """

    __slots__ = (
        "_held",
        "close",
        "completed_at",
        "connection",
        "fields",
        "finished",
        "flowing",
        "gone",
        "head",
        "method",
        "own_fields",
        "path",
        "peer",
        "received",
        "request_complete",
        "request_id",
        "response_started",
        "started_at",
        "target",
        "waits_for_continue",
        "wire_bytes",
    )

    def __init__(
        self,
        connection: ClientConnection,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        head: Head,
        request_id: bytes,
        keep_alive: bool,
        started_at: float,
    ) -> None:
        self.connection = connection
        self.method = method
        self.target = target
        self.path = head.path
        self.fields = fields
        self.head = head
        self.request_id = request_id
        self.started_at = started_at
        self.close = not keep_alive
        self.waits_for_continue = head.expects_continue
        self.peer: Peer | None = None
        self.flowing = False
        self.own_fields = b""
        self.completed_at = 0.0
        self.received = 0
        self.wire_bytes = 0
        self.request_complete = False
        self.response_started = False
        self.finished = False
        self.gone = False
        self._held: list[bytes] = []

    def joined(self, name: bytes) -> bytes | None:
        """A field's value; of several, all of them joined by commas (RFC 9110 section 5.3)."""
        value = self.head.single.get(name)
        if value is None or len(self.head.single) == len(self.fields):
            return value
        return b",".join(v for n, v in self.fields if n == name)

    # What the connection tells.

    def body_received(self, data: bytes) -> None:
        if self.finished:
            return
        self.waits_for_continue = False
        self.received += len(data)
        if self.flowing and self.peer is not None:
            self.peer.body(data)
            return
        self._held.append(data)
        self.connection.held += len(data)
        if self.connection.held > HELD_BODY:
            self.connection.pause_body()

    def body_complete(self) -> None:
        self.request_complete = True
        self.completed_at = time.monotonic()
        if self.flowing and self.peer is not None:
            self.peer.body_end()

    # What the gateway does.

    def accept_body(self, peer: Peer) -> None:
        """Let the body flow to ``peer``; a client that waits for 100 (Continue) is told to go on."""
        self.peer = peer
        self.flowing = True
        if self.request_complete and not self._held:
            peer.body_end()
            return
        if self.waits_for_continue and not self.request_complete:
            self.waits_for_continue = False
            self.connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        for data in self._let_go():
            peer.body(data)
        if self.request_complete:
            peer.body_end()
        else:
            self.connection.resume_body()

    @property
    def held(self) -> list[bytes]:
        """What has come of the body and nobody has accepted yet."""
        return self._held

    def hold(self, pieces: list[bytes]) -> None:
        """Take a body back from a peer that has accepted it whole, for another one to accept."""
        self.peer = None
        self.flowing = False
        self._held = pieces
        self.connection.held += sum(map(len, pieces))

    def _let_go(self) -> list[bytes]:
        held, self._held = self._held, []
        if held:
            self.connection.held -= sum(map(len, held))
        return held

    def must_close(self) -> bool:
        """Whether this response is the connection's last; asked once, when its head is written.

        A body that is still to come and too long to be dropped ends the connection, and so does draining.
        """
        if not self.close:
            self.close = self.connection.shared.draining or (
                not self.request_complete and not self._drainable()
            )
        return self.close

    def _drainable(self) -> bool:
        length = self.head.length
        return length is not None and length - self.received <= DRAINED_BODY and not self.waits_for_continue

    def write(self, data: bytes) -> None:
        self.response_started = True
        self.connection.transport.write(data)

    def refuse(self, error: ProxyError, dialect: Dialect) -> int:
        """Answer with an error of ours; returns the body bytes sent."""
        answer = render(
            error,
            dialect,
            self.request_id,
            date=self.connection.shared.date,
            close=self.must_close(),
            head_only=self.method == "HEAD",
            own_fields=self.own_fields,
        )
        self.write(answer.data)
        self.finish()
        return answer.body_length

    def answer(self, head: bytes) -> None:
        """Answer with a status line and field lines of ours, and no body."""
        close = b"Connection: close\r\n" if self.must_close() else b""
        self.write(
            b"%bDate: %b\r\nX-Request-Id: %b\r\n%b\r\n"
            % (head, self.connection.shared.date, self.request_id, close)
        )
        self.finish()

    def finish(self) -> None:
        """The response is complete."""
        if not self.finished:
            self.finished = True
            self.peer = None
            self._let_go()
            self.connection.exchange_finished(self)

    def abort(self) -> None:
        """End the connection after what is written, so that an unfinished body is visibly cut short."""
        if not self.finished:
            self.finished = True
            self.peer = None
            self._let_go()
            self.connection.cut()
