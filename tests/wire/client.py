"""A client that puts on the wire exactly what a test says, and reads answers strictly (RFC 9112)."""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ([\t -~]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")


class TornError(Exception):
    """The connection ended in the middle of a message. `how` is `closed` or `reset`."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class MalformedError(Exception):
    """The proxy sent something that is not HTTP/1.1."""


@dataclass
class Response:
    """One answer. `torn` is None when the message ended as its framing says, else how the connection went."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    framing: str = "none"
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    torn: str | None = None
    length: int = 0
    received: int = 0
    arrived: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of a header that may stand once at most."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None


class Client:
    """One connection. Times are `time.monotonic()`; every wait has an end."""

    def __init__(self, sock: socket.socket, timeout: float = 10.0) -> None:
        self.sock = sock
        self.timeout = timeout
        self.buffer = bytearray()
        self.last_arrival = 0.0
        # A TLS session may not be used by two threads at once, and uploads run beside the reading.
        self.turn = threading.Lock()
        sock.setblocking(False)

    @classmethod
    def connect(
        cls,
        port: int,
        trust: ssl.SSLContext | None,
        *,
        receive_buffer: int = 0,
        ragged_ends: bool = False,
        timeout: float = 10.0,
    ) -> Client:
        """Connect to the proxy on loopback; with `trust`, over TLS with the certificate verified.

        `ragged_ends` tells an end without TLS's close_notify apart, as `reset`.
        """
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(timeout)
        raw.connect(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trust is None:
            return cls(raw, timeout)
        return cls(
            trust.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=not ragged_ends),
            timeout,
        )

    # -- sending

    def _when_ready(self, act: Callable[[], T], writing: bool) -> T:
        """Do what needs the socket as soon as it can be done; raises TimeoutError."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                with self.turn:
                    return act()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the proxy neither takes nor sends anything") from error
                to_write = writing and not isinstance(error, ssl.SSLWantReadError)
                readers, writers = ([], [self.sock]) if to_write else ([self.sock], [])
                select.select(readers, writers, [], left)

    def send(self, data: bytes) -> None:
        """Send all of it; raises TimeoutError when the proxy takes nothing for `timeout` seconds."""
        view = memoryview(data)
        while view:
            view = view[self._when_ready(lambda rest=view: self.sock.send(rest), True) :]  # type: ignore[misc]

    def send_in_pieces(self, data: bytes, step: int = 1, pause: float = 0.0) -> None:
        for start in range(0, len(data), step):
            self.send(data[start : start + step])
            if pause:
                time.sleep(pause)

    def half_close(self) -> None:
        """Say that nothing more comes, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave by a TCP reset, as a killed process behind a NAT does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    # -- receiving

    def _fill(self) -> None:
        try:
            data = self._when_ready(lambda: self.sock.recv(65536), False)
        except (ConnectionError, ssl.SSLError) as error:
            raise TornError("reset") from error
        if not data:
            raise TornError("closed")
        self.last_arrival = time.monotonic()
        self.buffer += data

    def _line(self) -> bytes:
        while (end := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > 65536:
                raise MalformedError("a line without an end")
            self._fill()
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        if b"\n" in line or b"\r" in line:
            raise MalformedError(f"bare CR or LF in {line!r}")
        return line

    def head(self, method: str = "GET") -> Response:
        """Read one status line and header section, 1xx included, and work out the framing (RFC 9112, 6.3)."""
        line = self._line()
        match = STATUS_LINE.fullmatch(line)
        if match is None:
            raise MalformedError(f"not a status line: {line[:200]!r}")
        headers: list[tuple[str, str]] = []
        while line := self._line():
            pair = FIELD_LINE.fullmatch(line)
            if pair is None:
                raise MalformedError(f"not a field line: {line[:200]!r}")
            headers.append((pair[1].decode(), pair[2].decode("latin-1")))
        response = Response(int(match[1]), match[2].decode(), headers, arrived=time.monotonic())
        coding, length = response.header("transfer-encoding"), response.header("content-length")
        if coding is not None and length is not None:
            raise MalformedError("both Transfer-Encoding and Content-Length")
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            return response
        if coding is not None:
            if coding != "chunked":
                raise MalformedError(f"Transfer-Encoding: {coding}")
            response.framing = "chunked"
        elif length is not None:
            if not length.isdigit():
                raise MalformedError(f"Content-Length: {length}")
            response.framing, response.length = "length", int(length)
        else:
            response.framing = "close"
        return response

    def piece(self, response: Response) -> bytes:
        """The next piece of the body, b"" at its end; one chunk at a time where the body is chunked.

        A connection that ends first sets `response.torn`, except where the end of the connection is the end
        of the body.
        """
        try:
            data = self._next_piece(response)
        except TornError as torn:
            if response.framing != "close" or torn.how == "reset":
                response.torn = torn.how
            return b""
        if data:
            response.pieces.append((self.last_arrival, data))
            response.received += len(data)
        return data

    def _next_piece(self, response: Response) -> bytes:
        if response.framing == "none":
            return b""
        if response.framing == "chunked":
            line = self._line()
            if not CHUNK_SIZE.fullmatch(line):
                raise MalformedError(f"not a chunk size: {line[:100]!r}")
            size = int(line, 16)
            while len(self.buffer) < size + 2:
                self._fill()
            data = bytes(self.buffer[:size])
            if self.buffer[size : size + 2] != b"\r\n":
                raise MalformedError("a chunk does not end in CRLF, or a trailer came")
            del self.buffer[: size + 2]
            return data
        left = response.length - response.received if response.framing == "length" else 1 << 60
        if left == 0:
            return b""
        if not self.buffer:
            self._fill()
        data = bytes(self.buffer[:left])
        del self.buffer[: len(data)]
        return data

    def response(self, method: str = "GET") -> Response:
        """The next final answer, whole; 1xx answers before it are skipped."""
        response = self.head(method)
        while response.status < 200:
            response = self.head(method)
        while self.piece(response):
            pass
        return response

    def request(self, data: bytes, method: str = "GET") -> Response:
        self.send(data)
        return self.response(method)

    def end(self, timeout: float | None = None) -> str:
        """Wait until the proxy ends the connection, by `closed` or `reset`; nothing more may come before.

        Raises TimeoutError when it stays open.
        """
        if self.buffer:
            raise MalformedError(f"more than was asked for: {bytes(self.buffer[:200])!r}")
        before = self.timeout
        self.timeout = before if timeout is None else timeout
        try:
            self._fill()
        except TornError as torn:
            return torn.how
        finally:
            self.timeout = before
        raise MalformedError(f"more than was asked for: {bytes(self.buffer[:200])!r}")
