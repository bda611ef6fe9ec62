"""The upstream's side of a connection from the proxy, and of one request on it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field


class LeftError(Exception):
    """The proxy ended the connection while more was expected of it."""


@dataclass
class Connection:
    """One TCP connection from the proxy. `ended` is `closed` or `reset` once its side has gone."""

    sock: socket.socket
    opened_at: float
    received: bytearray = field(default_factory=bytearray)
    consumed: int = 0
    requests: int = 0
    ended: str | None = None
    ended_at: float = 0.0

    def fill(self) -> None:
        """Take what comes next; raises LeftError at the end and TimeoutError after the socket's time-out."""
        if self.ended:
            raise LeftError(self.ended)
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            self.ended, self.ended_at = "reset", time.monotonic()
            raise LeftError("reset") from error
        if not data:
            self.ended, self.ended_at = "closed", time.monotonic()
            raise LeftError("closed")
        self.received += data

    def take(self, count: int) -> bytes:
        while len(self.received) - self.consumed < count:
            self.fill()
        self.consumed += count
        return bytes(self.received[self.consumed - count : self.consumed])

    def take_until(self, mark: bytes) -> bytes:
        while (at := self.received.find(mark, self.consumed)) < 0:
            self.fill()
        return self.take(at + len(mark) - self.consumed)


class Exchange:
    """One request as it came, and the hand that answers it."""

    def __init__(self, connection: Connection, head: bytes) -> None:
        self.connection = connection
        self.head = head
        self.arrived = time.monotonic()
        request_line, *lines = head[:-4].split(b"\r\n")
        self.method, self.target, self.version = request_line.decode("latin-1").split(" ")
        pairs = (line.decode("latin-1").partition(":") for line in lines)
        self.headers = [(name, value.strip()) for name, _, value in pairs]
        self.body_wire = b""
        self.body = b""
        self.played = False
        self.finished = threading.Event()

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def read_body(self) -> bytes:
        """Read the body to its end; `body_wire` keeps its framing."""
        start = self.connection.consumed
        if "chunked" in [value.lower() for value in self.all("transfer-encoding")]:
            parts = []
            while size := int(self.connection.take_until(b"\r\n").split(b";")[0], 16):
                parts.append(self.connection.take(size))
                assert self.connection.take(2) == b"\r\n"
            assert self.connection.take_until(b"\r\n") == b"\r\n", "a trailer was passed on"
            self.body = b"".join(parts)
        elif lengths := self.all("content-length"):
            self.body = self.connection.take(int(lengths[0]))
        self.body_wire = bytes(self.connection.received[start : self.connection.consumed])
        return self.body

    def read_some(self) -> bytes:
        """Take what has come of the body, at least a byte; nothing of it is kept in the record."""
        connection = self.connection
        if len(connection.received) == connection.consumed:
            connection.fill()
        data = bytes(connection.received[connection.consumed :])
        del connection.received[connection.consumed :]
        return data

    def send(self, data: bytes) -> None:
        try:
            self.connection.sock.sendall(data)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            self.connection.ended, self.connection.ended_at = "reset", time.monotonic()
            raise LeftError("reset") from error

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def finish(self) -> None:
        """The answer is over; the connection waits for the next request."""
        self.finished.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.sock.close()
        self.finished.set()

    def reset(self) -> None:
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.sock.close()
        self.finished.set()

    def left_at(self, timeout: float = 10.0) -> float:
        """When the proxy ended the connection; raises TimeoutError when it stays."""
        deadline = time.monotonic() + timeout
        while not self.connection.ended:
            try:
                self.connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            except OSError:
                if self.connection.ended:  # the upstream's own thread has seen the end, and closed the socket
                    break
                raise
            with contextlib.suppress(LeftError):
                self.connection.fill()
        return self.connection.ended_at
