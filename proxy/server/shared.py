"""What all client connections share: the limits, the Date, the count, and the watch on paused ones."""

from __future__ import annotations

import asyncio
import os
import re
import select
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from proxy.errors import ProxyError

if TYPE_CHECKING:
    from proxy.server.client_connection import ClientConnection

WATCH_INTERVAL = 0.05
"""Seconds between looks at connections whose reading is paused."""

_PLAIN_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_GONE = select.POLLHUP | select.POLLERR | select.POLLRDHUP

Refused = Callable[["ClientConnection", ProxyError, bytes, int], None]


class Shared:
    """Times are in seconds, sizes in bytes.

    ``refused`` is told of answers that no request stands behind; ``client_certificates`` says that clients
    are asked for one. A reload may change all but these two.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        max_header_bytes: int,
        header_timeout: float,
        idle_timeout: float,
        refused: Refused,
        client_certificates: bool = False,
    ) -> None:
        self.max_connections = max_connections
        self.max_header_bytes = max_header_bytes
        self.header_timeout = header_timeout
        self.idle_timeout = idle_timeout
        self.refused = refused
        self.client_certificates = client_certificates
        self.cors_fields: Callable[[bytes | None], bytes] = lambda _: b""  # by the request's Origin
        self.open_connections = 0  # from accept on, handshakes included
        self.room: Callable[[], None] | None = None  # called once when a connection has gone
        self.draining = False
        self.date = b""
        self.set_date(time.time())
        self._watched: set[ClientConnection] = set()
        self._watching = False
        self._id_prefix = os.urandom(8).hex().encode()
        self._id_count = 0

    def closed(self) -> None:
        """A connection that the listener accepted is gone."""
        self.open_connections -= 1
        if self.room is not None:
            room, self.room = self.room, None
            room()

    def set_date(self, now: float) -> None:
        """``now`` in unix seconds; RFC 9110 section 5.6.7."""
        self.date = formatdate(now, usegmt=True).encode()

    def request_id(self, offered: bytes | None) -> bytes:
        """The client's own X-Request-Id where it is a plain token of up to 128 characters, else a new one."""
        if offered is not None:
            offered = offered.strip(b" \t")
            # One that looks like a credential is taken for a client's mistake.
            if _PLAIN_TOKEN.fullmatch(offered) and b"oap_" not in offered and not offered.startswith(b"eyJ"):
                return offered
        self._id_count += 1
        return b"%b%016x" % (self._id_prefix, self._id_count)

    def watch(self, connection: ClientConnection) -> None:
        """Look from time to time whether this connection's client is still there."""
        self._watched.add(connection)
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(WATCH_INTERVAL, self._look)

    def unwatch(self, connection: ClientConnection) -> None:
        self._watched.discard(connection)

    def _look(self) -> None:
        poll = select.poll()
        by_fd: dict[int, ClientConnection] = {}
        for connection in self._watched:
            sock = connection.transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:  # else it is about to be told that it is lost
                by_fd[sock.fileno()] = connection
                poll.register(sock.fileno(), select.POLLRDHUP)
        for fd, event in poll.poll(0):
            if event & _GONE:
                self.unwatch(by_fd[fd])
                by_fd[fd].peer_vanished()
        self._watching = bool(self._watched)
        if self._watching:
            asyncio.get_running_loop().call_later(WATCH_INTERVAL, self._look)
