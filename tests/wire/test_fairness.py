"""What one client does, with or without a key, costs its neighbours neither their turn nor memory."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from .client import Client, TornError
from .conftest import Connect, StartSite, over_tls_and_plain, settled, until
from .messages import check_refusal, request
from .site import Keys, Site
from .upstream import Upstream, message

IDLE = 1.0
MAX_CONNECTIONS = 12
TOLD_503 = 64
MIB = 1 << 20
NO_KEY = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
OPEN = "ollama_proxy_open_connections"


def patient_for_a_second(start_site: StartSite, mode: str) -> Site:
    return start_site(
        tls={"mode": mode}, listen={"idle_timeout": "1s", "header_timeout": "5s"}, log={"access": False}
    )


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite) -> Site:
    return patient_for_a_second(start_site, "self-signed")


@pytest.fixture(scope="module")
def plain_site(start_site: StartSite) -> Site:
    return patient_for_a_second(start_site, "off")


plain = pytest.mark.parametrize("site", ["plain"], indirect=True)


class Flood(threading.Thread):
    """Sends and reads for a while without a break, on a new connection whenever the proxy closes one."""

    def __init__(self, port: int, data: bytes, lasts: float) -> None:
        super().__init__(daemon=True)
        self.port, self.data, self.ends = port, data, time.monotonic() + lasts

    def run(self) -> None:
        while time.monotonic() < self.ends:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                reader = threading.Thread(target=self._read, args=(sock,), daemon=True)
                reader.start()
                with contextlib.suppress(OSError):
                    while time.monotonic() < self.ends:
                        sock.sendall(self.data)
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                reader.join(2)

    @staticmethod
    def _read(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sock.recv(MIB):
                pass


@plain
@pytest.mark.parametrize("a_write", [100, 20_000])
def test_requests_pipelined_without_a_break_delay_no_neighbour(a_write: int, site: Site, keys: Keys) -> None:
    rss = site.rss()
    flood = Flood(site.port, NO_KEY * a_write, 2.0)
    flood.start()
    waited = []
    while flood.is_alive():
        started = time.monotonic()
        with contextlib.closing(site.connect()) as client:
            assert client.request(request("GET", "/api/version", keys.read)).status == 200
        waited.append(time.monotonic() - started)
        time.sleep(0.02)
    assert max(waited) < 0.5
    assert len(waited) > 5
    assert site.rss() - rss < 16 * MIB


def taken(client: Client, data: bytes) -> int:
    """Send again and again until the proxy takes no more; how much it took."""
    client.timeout = 0.3
    total = 0
    with contextlib.suppress(TimeoutError):
        while True:
            client.send(data)
            total += len(data)
    return total


@over_tls_and_plain
def test_a_client_without_a_key_that_reads_no_answer_is_cut(site: Site, connect: Connect) -> None:
    until(lambda: site.metric(OPEN, {}) == 0)
    client = connect(receive_buffer=4096)
    rss = site.rss()
    # Long ones, since thousands in one read would be refused at once.
    assert taken(client, request("GET", "/x", None, "X-A: " + "a" * 1000) * 50)
    assert site.metric(OPEN, {}) == 1
    assert site.rss() - rss < 8 * MIB
    until(lambda: site.metric(OPEN, {}) == 0, IDLE + 1.5, "a client that takes nothing is kept")


def flood_answer(upstream: Upstream, client: Client, keys: Keys) -> Callable[[], float]:
    """An answer without end to a client that has not read a byte; returns when the proxy left it."""
    upstream.play()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", [("Content-Length", str(1 << 40))], length=False))
    exchange.connection.sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            exchange.send(bytes(65536))
    return exchange.left_at


@over_tls_and_plain
def test_an_answer_that_is_not_read_is_cut_on_both_sides(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    left_at = flood_answer(upstream, connect(receive_buffer=4096), keys)
    stalled = time.monotonic()
    assert left_at() - stalled < IDLE + 1.5


@over_tls_and_plain
def test_an_answer_that_is_read_slowly_but_steadily_is_not_cut(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    total = 12 * MIB
    upstream.answer = lambda exchange: exchange.send(message("200 OK", [], bytes(total)))
    client = connect(receive_buffer=65536)
    client.send(request("GET", "/api/tags", keys.read))
    head = client.head()
    started = time.monotonic()
    while client.piece(head):
        time.sleep(max(0.0, started + head.received / (4 * MIB) - time.monotonic()))
    assert (head.received, head.torn) == (total, None)
    assert time.monotonic() - started > 2 * IDLE


def test_silent_connections_beyond_the_limit_hold_no_descriptors(start_site: StartSite, keys: Keys) -> None:
    site = start_site(listen={"max_connections": MAX_CONNECTIONS, "header_timeout": "30s"})

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{site.process.pid}/fd"))

    with contextlib.closing(site.connect()) as client:
        assert client.request(request("GET", "/api/version", keys.read)).status == 200
    before = settled(descriptors, 0.2)
    silent = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(200)]
    held = settled(descriptors, 0.3) - before
    assert MAX_CONNECTIONS <= held < MAX_CONNECTIONS + TOLD_503 + 8
    for sock in silent:
        sock.close()

    def served() -> bool:
        with contextlib.closing(site.connect()) as client, contextlib.suppress(OSError, TornError):
            return client.request(request("GET", "/api/version", keys.read)).status == 200
        return False

    until(served, 5, "the connections that closed still take the places")
    until(lambda: descriptors() < before + 4)


def a_long_host(number: int) -> tuple[bytes, int]:
    return request("GET", "/", None, host=f"a{number:06}" + "b" * 30_000), 400


def a_long_name(number: int) -> tuple[bytes, int]:
    return request("GET", "/", None, f"x{number:06}" + "b" * 30_000 + ": 1"), 200


@plain
@pytest.mark.parametrize("make", [a_long_host, a_long_name])
def test_what_was_in_a_head_is_not_remembered(
    make: Callable[[int], tuple[bytes, int]], site: Site, upstream: Upstream
) -> None:
    def send(numbers: range) -> None:
        for number in numbers:
            raw, status = make(number)
            with contextlib.closing(site.connect()) as client:
                assert client.request(raw).status == status
            upstream.requests.clear()
            for connection in upstream.connections:
                del connection.received[: connection.consumed]
                connection.consumed = 0

    send(range(50))
    rss = site.rss()
    send(range(50, 1550))  # 45 MB
    assert site.rss() - rss < 8 * MIB


@over_tls_and_plain
def test_too_much_pipelined_at_once_is_answered_in_order_and_then_refused(
    site: Site, connect: Connect
) -> None:
    client = connect()
    before = site.rss()
    client.send(b"".join(request("GET", "/x", None, f"X-Request-Id: {n}", host="h") for n in range(8000)))
    answered = 0
    while (answer := client.response()).status == 401:
        assert answer.header("x-request-id") == str(answered)
        answered += 1
    check_refusal(answer, 400, "malformed_request")
    assert 1024 <= answered < 8000
    client.end(5)
    assert site.rss() - before < 16 * MIB
