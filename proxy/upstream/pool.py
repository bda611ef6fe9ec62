"""Keep-alive connections to one Ollama, newest first; dead ones leave when they die."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

from proxy.upstream.connection import UpstreamConnection

IDLE_TIMEOUT = 60.0
"""Seconds after which an unused connection is closed."""

MAX_IDLE = 512
"""Connections kept for reuse."""


class Pool:
    """Connections to ``host``:``port``, over TLS where ``tls`` is given; time-outs in seconds."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, connect_timeout: float) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self.connect_timeout = connect_timeout
        self._idle: list[UpstreamConnection] = []

    def take(self) -> UpstreamConnection | None:
        """An idle connection that is not known to be dead, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.alive and not connection.transport.is_closing():
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A fresh connection. Raises OSError (TimeoutError after the connect time-out)."""
        async with asyncio.timeout(self.connect_timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: UpstreamConnection(self._forget), self._host, self._port, ssl=self._tls
            )
        sock: socket.socket = connection.transport.get_extra_info("socket")
        # A machine that vanished in the middle of an answer is found by probes; there is no time-out.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose exchange is over on both sides."""
        if len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def close_stale(self, now: float) -> None:
        """Close what has not been used for `IDLE_TIMEOUT`; ``now`` of `time.monotonic`."""
        fresh = 0
        while fresh < len(self._idle) and now - self._idle[fresh].idle_since > IDLE_TIMEOUT:
            fresh += 1
        stale, self._idle[:fresh] = self._idle[:fresh], []
        for connection in stale:
            connection.abort()

    def close(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def _forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
