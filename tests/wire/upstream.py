"""A scriptable upstream on a raw TCP socket: it keeps every byte it got and does what a test tells it.

A test names an answer for every request (`upstream.answer = respond(...)`), or plays the upstream itself:
after `upstream.play()`, `upstream.next()` hands over the next request, and the test says what follows.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

WAIT = 10.0


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
        except TimeoutError:
            raise
        except OSError as error:
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
        except TimeoutError:
            raise
        except OSError as error:
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

    def left_at(self, timeout: float = WAIT) -> float:
        """When the proxy ended the connection; raises TimeoutError when it stays."""
        deadline = time.monotonic() + timeout
        while not self.connection.ended:
            self.connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            with contextlib.suppress(LeftError):
                self.connection.fill()
        return self.connection.ended_at


Answer = Callable[[Exchange], None]


def message(status: str, headers: list[tuple[str, str]], body: bytes = b"", length: bool = True) -> bytes:
    """An answer with the headers given, in order, and by default its Content-Length."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def respond(raw: bytes) -> Answer:
    """Read the request whole, then send these bytes and keep the connection."""

    def answer(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(raw)

    return answer


OK = message("200 OK", [("Content-Type", "application/json; charset=utf-8")], b'{"version":"0.24.0"}')


def greet(exchange: Exchange) -> None:
    """What every request gets unless a test says otherwise; without a body for HEAD."""
    exchange.read_body()
    exchange.send(OK[: OK.index(b"\r\n\r\n") + 4] if exchange.method == "HEAD" else OK)


class Upstream:
    """Listens on loopback. The proxy's own health checks are answered and left out of the record.

    `probe_agent` is how their User-Agent begins.
    """

    probe_agent = "python-httpx"

    def __init__(self, receive_buffer: int = 0) -> None:
        self.answer: Answer = greet
        self.requests: list[Exchange] = []
        self.connections: list[Connection] = []
        self.faults: list[str] = []
        self.waiting: queue.Queue[Exchange] = queue.Queue()
        self.listener = socket.socket()
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.port: int = self.listener.getsockname()[1]
        self.authority = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    # -- what a test says

    def play(self, path: str = "/") -> None:
        """From now on requests whose path begins so wait for `next()`."""

        def wait_or_greet(exchange: Exchange) -> None:
            if exchange.target.startswith(path):
                exchange.played = True
                self.waiting.put(exchange)
                exchange.finished.wait()
            else:
                greet(exchange)

        self.answer = wait_or_greet

    def next(self, timeout: float = WAIT) -> Exchange:
        """The next request that nobody has answered yet; raises queue.Empty."""
        exchange = self.waiting.get(timeout=timeout)
        exchange.connection.sock.settimeout(WAIT)
        return exchange

    def open_connections(self) -> list[Connection]:
        return [connection for connection in self.connections if not connection.ended]

    def close_idle(self) -> None:
        """Close every kept connection, as an upstream does after its idle time-out."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Back to the start: default answer, empty record, exchanges of the last test ended."""
        while not self.waiting.empty():
            self.waiting.get_nowait().close()
        for exchange in self.requests:
            # The client may have the end of an answer before the thread that sent it goes on.
            if not exchange.finished.wait(0 if exchange.played else 0.5):
                exchange.close()
        self.answer = greet
        self.requests = []
        self.faults = []
        self.connections = self.open_connections()
        for connection in self.connections:
            del connection.received[:]
            connection.consumed = connection.requests = 0

    def reached(self) -> bytes:
        """Everything of the requests since `forget`, as it came; b"" when nothing did."""
        return b"".join(
            bytes(connection.received)
            for connection in self.connections
            if any(exchange.connection is connection for exchange in self.requests)
            or len(connection.received) > connection.consumed
        )

    def stop(self) -> None:
        self.forget()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self.listener.close()
        self.close_idle()

    # -- serving

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, time.monotonic())
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(OSError):
            while not connection.ended:
                connection.sock.settimeout(None)
                try:
                    self._serve_one(connection)
                except LeftError:
                    return

    def _serve_one(self, connection: Connection) -> None:
        head = connection.take_until(b"\r\n\r\n")
        connection.requests += 1
        try:
            exchange = Exchange(connection, head)
        except ValueError:
            self.faults.append(f"not a request: {head[:200]!r}")
            return connection.sock.close()
        if any(agent.startswith(self.probe_agent) for agent in exchange.all("user-agent")):
            if connection in self.connections:
                self.connections.remove(connection)
            greet(exchange)
            return
        self.requests.append(exchange)
        try:
            self.answer(exchange)
        finally:
            exchange.finished.set()
