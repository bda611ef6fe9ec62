"""The client leaves: whatever the phase, Ollama's connection is closed at once, so that the GPU is free."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .client import Client
from .conftest import Connect, over_tls_and_plain, until
from .messages import request
from .site import Keys, Site
from .upstream import Exchange, Upstream, message

BLOB = "/api/blobs/sha256:" + "0" * 64
BOUND = 0.1
RETRANSMISSION = 0.2
SNMP = Path("/proc/net/snmp")
STREAM = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]

Leave = Callable[[Client], None]
WAYS: dict[str, Leave] = {"closes": Client.close, "resets": Client.reset, "half_closes": Client.half_close}
ways = pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS)


def retransmitted() -> int:
    """Segments that the kernel had to send again; it waits RETRANSMISSION for each."""
    names, values = (line.split() for line in SNMP.read_text().splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def left_in_time(exchange: Exchange, client: Client, leave: Leave) -> bool:
    """Whether the proxy leaves within BOUND, not counting what a segment lost by the kernel costs."""
    before, started = retransmitted(), time.monotonic()
    leave(client)
    took = exchange.left_at(5) - started
    return took < BOUND or (retransmitted() > before and RETRANSMISSION < took < RETRANSMISSION + BOUND)


def fill(send: Callable[[bytes], None]) -> None:
    """Send until the other side takes no more."""
    with contextlib.suppress(TimeoutError):
        while True:
            send(bytes(65536))


@over_tls_and_plain
@ways
def test_while_the_body_is_awaited(leave: Leave, connect: Connect, keys: Keys, upstream: Upstream) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", BLOB, keys.manage, "Content-Length: 1000"))
    exchange = upstream.next()
    assert left_in_time(exchange, client, leave)


@over_tls_and_plain
@ways
@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_in_the_middle_of_an_upload(
    framing: str, leave: Leave, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", BLOB, keys.manage, framing) + b"3E8\r\n" + bytes(1000))
    exchange = upstream.next()
    exchange.read_some()
    assert left_in_time(exchange, client, leave)
    rest = exchange.connection.received[exchange.connection.consumed :]
    assert not rest.endswith(b"0\r\n\r\n"), "a torn upload was completed"


@over_tls_and_plain
def test_in_the_middle_of_an_upload_that_the_upstream_does_not_take(
    site: Site, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    """The proxy has stopped reading from the client then, and must notice all the same.

    A reset, that is: an orderly end stands in line behind the bytes that nobody takes.
    """
    upstream.play()
    client = connect()
    client.send(request("POST", BLOB, keys.manage, f"Content-Length: {1 << 30}"))
    client.timeout = 0.3
    fill(client.send)
    exchange = upstream.next()
    labels = {"route": "/api/blobs/{digest}"}
    assert site.metric("ollama_proxy_requests_in_flight", labels) == 1
    client.reset()
    left = time.monotonic()
    while site.metric("ollama_proxy_requests_in_flight", labels):
        assert time.monotonic() - left < 3 * BOUND  # asking takes some of it
    assert exchange.left_at(5)


@over_tls_and_plain
@ways
@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions"])
def test_while_the_model_loads(
    path: str, leave: Leave, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", path, keys.default, body=b'{"model":"m"}'))
    exchange = upstream.next()
    exchange.read_body()
    assert left_in_time(exchange, client, leave)


@over_tls_and_plain
@ways
@pytest.mark.parametrize("begun", ["head", "chunk"])
def test_in_the_middle_of_an_answer(
    begun: str, leave: Leave, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", STREAM, length=False))
    head = client.head("POST")
    if begun == "chunk":
        exchange.chunk(b"{}\n")
        assert client.piece(head) == b"{}\n"
    assert left_in_time(exchange, client, leave)


@over_tls_and_plain
def test_in_the_middle_of_an_answer_that_the_client_does_not_take(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    client = connect(receive_buffer=4096)
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", [("Content-Length", str(1 << 30))], length=False))
    exchange.connection.sock.settimeout(0.3)
    fill(exchange.send)
    assert left_in_time(exchange, client, Client.reset)


@pytest.mark.parametrize("phase", ["waiting", "streaming"])
def test_with_a_proper_goodbye_of_tls(phase: str, connect: Connect, keys: Keys, upstream: Upstream) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = upstream.next()
    exchange.read_body()
    if phase == "streaming":
        exchange.send(message("200 OK", STREAM, length=False))
        client.head("POST")

    def say_goodbye(client: Client) -> None:
        with contextlib.suppress(OSError):
            client.sock.unwrap()  # type: ignore[attr-defined]

    assert left_in_time(exchange, client, say_goodbye)


def test_in_the_middle_of_a_head(connect: Connect, keys: Keys, upstream: Upstream, site: Site) -> None:
    client = connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}")[:40])
    client.reset()
    assert connect().request(request("GET", "/api/tags", keys.read)).status == 200
    assert len(upstream.requests) == 1


def test_with_requests_still_waiting_behind(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}") * 3)
    exchange = upstream.next()
    exchange.read_body()
    assert left_in_time(exchange, client, Client.reset)
    time.sleep(0.1)
    assert len(upstream.requests) == 1, "a request of a client that left was forwarded"


def test_many_at_once(connect: Connect, keys: Keys, upstream: Upstream, site: Site) -> None:
    upstream.play()
    clients = [connect() for _ in range(50)]
    for client in clients:
        client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchanges = [upstream.next() for _ in clients]
    for client in clients:
        client.reset()
    for exchange in exchanges:
        exchange.left_at(5)
    assert site.wait_for_metric("ollama_proxy_requests_in_flight", 0) == 0


def test_a_connection_that_was_left_is_not_used_again(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = upstream.next()
    exchange.read_body()
    client.close()
    exchange.left_at(5)
    neighbour = connect()
    neighbour.send(request("GET", "/api/tags", keys.read))
    other = upstream.next()
    assert other.connection is not exchange.connection
    other.send(message("200 OK", [], b"mine"))
    other.finish()
    assert neighbour.response().body == b"mine"


def test_many_that_left_while_the_proxy_was_not_reading_do_not_end_the_watch(
    site: Site, keys: Keys, connect: Connect, upstream: Upstream
) -> None:
    upstream.play()
    held = request("POST", "/api/generate", keys.default, "Content-Length: 1000000") + bytes(100_000)
    raw = request("GET", "/api/tags", keys.read) + held
    in_flight = "ollama_proxy_requests_in_flight"

    def come_and_go(number: int) -> None:
        with contextlib.suppress(OSError):
            client = site.connect(timeout=3)
            client.send(raw)
            time.sleep(0.03 if number % 4 else 0.001 * (number % 60))
            client.reset()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(300)))
    until(lambda: site.metric(in_flight, {}) == 0, 5)
    upstream.forget()
    upstream.play()
    stalled = connect(timeout=0.3)
    stalled.send(request("POST", BLOB, keys.manage, f"Content-Length: {1 << 30}"))
    fill(stalled.send)
    exchange = upstream.next()
    assert site.metric(in_flight, {}) == 1
    left = time.monotonic()
    stalled.reset()
    until(lambda: site.metric(in_flight, {}) == 0, 5 * BOUND, "nobody looks after paused connections")
    assert exchange.left_at(5) - left < 5
