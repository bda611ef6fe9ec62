"""A scriptable upstream on a raw TCP socket: it keeps every byte it got and does what a test tells it.

A test names an answer for every request (`upstream.answer = respond(...)`), or plays the upstream itself:
after `upstream.play()`, `upstream.next()` hands over the next request, and the test says what follows.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable

from .exchange import Connection, Exchange, LeftError

WAIT = 10.0

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
    """Listens on loopback. The proxy's own questions are answered and left out of the record.

    `probe_agent` is how their User-Agent begins; `models` are the names that Ollama is to list.
    """

    probe_agent = "python-httpx"

    def __init__(self, receive_buffer: int = 0) -> None:
        self.answer: Answer = greet
        self.models: list[str] = []
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
        """Close every kept connection, as after an idle time-out, and wait until the proxy has noticed."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 2
        while any(connection.sock.fileno() >= 0 for connection in self.open_connections()):
            assert time.monotonic() < deadline, "the proxy keeps connections that the upstream has closed"
            time.sleep(0.002)

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
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

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
        with contextlib.suppress(OSError), connection.sock:
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
            if exchange.target == "/api/tags" and self.models:
                listed = json.dumps({"models": [{"name": name} for name in self.models]}).encode()
                exchange.read_body()
                exchange.send(message("200 OK", [("Content-Type", "application/json")], listed))
            else:
                greet(exchange)
            return
        self.requests.append(exchange)
        try:
            self.answer(exchange)
        finally:
            exchange.finished.set()
