"""The public listener: its sockets, the sweep over its connections, and draining."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import time
from typing import Any, cast

from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from proxy.server.client_connection import ClientConnection
from proxy.server.shared import Shared

log = logging.getLogger("ollama_auth_proxy")

BACKLOG = 2048
ACCEPTS_A_TURN = 64
TOLD_503 = 64
"""Connections beyond the limit that are accepted to be refused; those after them wait."""

DRAIN_STEP = 0.05

QUIET = 1.0
"""Seconds without a request after which a connection is closed while draining. To close one at once would
meet requests that are on their way, and a client cannot tell whether such a request was heard."""

HANDSHAKES = 2.0
"""Seconds for which TLS handshakes that have begun are waited for while draining."""


def bind(host: str, port: int) -> socket.socket:
    """A listening-ready TCP socket. Raises OSError, for example where the port is in use.

    An IPv6 wildcard takes IPv4 as well.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        set_options(sock)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def set_options(sock: socket.socket) -> None:
    """What accepted connections inherit: no delay, and probes that find clients which vanished silently."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def raise_open_files(wanted: int) -> int:
    """Raise the soft limit on open files towards ``wanted``; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


class Listener:
    """Serves ``app`` (ASGI) on one socket with `ClientConnection`s.

    ``tls`` may be replaced; it counts for the connections that are accepted from then on.
    """

    def __init__(self, app: Any, sock: socket.socket, tls: ssl.SSLContext | None, shared: Shared) -> None:
        self.shared = shared
        self._sock = sock
        self.tls = tls
        self._state = ServerState()
        # The response path is ours, so uvicorn adds no fields, logs no access and trusts no proxy fields.
        self._config = UvicornConfig(
            app,
            http=ClientConnection,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self._handshakes: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.Task[None] | None = None

    @property
    def connections(self) -> set[ClientConnection]:
        return cast("set[ClientConnection]", self._state.connections)

    async def start(self) -> None:
        self._config.load()
        if not self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._sock.listen(BACKLOG)
        self._accept_more()
        self._sweep = asyncio.create_task(self._sweep_forever())

    def _accept_more(self) -> None:
        if not self.shared.draining:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        """Accept what has come, as far as there is room; the rest waits in the kernel's backlog.

        Accepting is ours because a server of the event loop counts nothing before the TLS handshake is done.
        A few connections beyond the limit are taken in, to be told 503.
        """
        for _ in range(ACCEPTS_A_TURN):
            if self._full():
                asyncio.get_running_loop().remove_reader(self._sock)
                self.shared.room = self._accept_more
                return
            if not self._accept_one():
                return

    def _full(self) -> bool:
        return self.shared.open_connections >= self.shared.max_connections + TOLD_503

    def _accept_one(self) -> bool:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return False
        except OSError as error:  # no descriptors left, most likely; the next turn tries again
            log.error("a connection could not be accepted: %s", error)
            return False
        self.shared.open_connections += 1
        task = asyncio.create_task(self._connect(sock))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)
        return True

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        timeout = {"ssl_handshake_timeout": self.shared.header_timeout} if self.tls else {}
        made: list[ClientConnection] = []

        def make() -> ClientConnection:
            made.append(ClientConnection(self._config, self._state, {}, loop, shared=self.shared))
            return made[0]

        try:
            await loop.connect_accepted_socket(make, sock, ssl=self.tls, **cast("Any", timeout))
        except OSError:  # the handshake failed or took too long: the network's everyday
            sock.close()
            if not made or made[0].transport is None:
                self.shared.closed()

    async def _sweep_forever(self) -> None:
        shared = self.shared
        while True:
            step = max(0.05, min(1.0, shared.header_timeout / 4, shared.idle_timeout / 4))
            await asyncio.sleep(step)
            shared.set_date(time.time())
            now = time.monotonic()
            for connection in list(self.connections):
                connection.tick(now)

    async def drain(self, at_most: float) -> bool:
        """Stop accepting and wait up to ``at_most`` seconds until no connection is left.

        A request that still comes on a kept connection is served, as that connection's last. Returns
        whether every exchange ended by itself.
        """
        self.shared.draining = True
        self._stop_accepting()
        begun = now = time.monotonic()
        while now - begun < at_most:
            for connection in list(self.connections):
                connection.close_if_quiet(now, QUIET)
            handshakes = self._handshakes and now - begun < HANDSHAKES
            if not handshakes and not any(connection.lasts() for connection in self.connections):
                break
            await asyncio.sleep(DRAIN_STEP)
            now = time.monotonic()
        return not self.busy()

    def _stop_accepting(self) -> None:
        """Close the socket, after taking in those who are connected already: closing it would reset them."""
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            while not self._full() and self._accept_one():
                pass
            self._sock.close()

    def busy(self) -> bool:
        """Whether anything is still to be sent."""
        return any(c.exchange is not None or c.transport.get_write_buffer_size() for c in self.connections)

    async def close(self) -> None:
        """End every connection at once."""
        self.shared.draining = True
        self._stop_accepting()
        for task in self._handshakes:
            task.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self.connections):
            if connection.exchange is None:
                connection.transport.close()
            else:
                connection.transport.abort()
        await asyncio.sleep(0)
