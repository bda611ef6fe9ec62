"""Limits that keep one client from standing in the way of the others."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from .client import Client
from .conftest import StartSite
from .messages import check_refusal, request
from .site import Keys, Site
from .upstream import OK, Exchange, message

MAX_CONNECTIONS = 12
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite) -> Site:
    return start_site(
        listen={"header_timeout": "1s", "idle_timeout": "1s", "max_connections": MAX_CONNECTIONS}
    )


@pytest.fixture(autouse=True)
def good_afterwards(site: Site, keys: Keys) -> Iterator[None]:
    """Whatever a client did, the next one is served."""
    yield
    site.upstream.forget()
    deadline = time.monotonic() + 3
    while True:
        client = site.connect()
        answer = client.request(request("GET", "/api/version", keys.default))
        client.close()
        if answer.status == 200:
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with contextlib.closing(site.connect()) as opened:
        yield opened


def drip(client: Client, data: bytes, pause: float) -> None:
    """Send byte by byte until the proxy has enough."""
    with contextlib.suppress(OSError):
        for at in range(len(data)):
            client.send(data[at : at + 1])
            time.sleep(pause)


def test_a_head_that_drips_in_is_answered_408(client: Client, site: Site, keys: Keys) -> None:
    started = time.monotonic()
    drip(client, request("GET", "/api/version", keys.default)[:14], 0.15)
    answer = client.response()
    check_refusal(answer, 408, "malformed_request")
    assert TIMEOUT * 0.9 < answer.arrived - started < TIMEOUT + 1.5
    client.end(5)
    assert site.upstream.reached() == b""


def test_half_a_head_is_answered_408(client: Client, keys: Keys) -> None:
    started = time.monotonic()
    client.send(request("GET", "/api/version", keys.default)[:-2])
    check_refusal(client.response(), 408, "malformed_request")
    assert time.monotonic() - started < TIMEOUT + 1.5


def test_a_later_head_that_drips_in_is_answered_408(client: Client, keys: Keys) -> None:
    assert client.request(request("GET", "/api/version", keys.default)).status == 200
    client.send(request("GET", "/api/version", keys.default)[:-2])
    check_refusal(client.response(), 408, "malformed_request")


def test_a_connection_without_a_request_is_closed(client: Client) -> None:
    started = time.monotonic()
    client.end(5)
    assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT + 1.5


def test_a_handshake_that_never_begins_is_closed(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 5) as raw:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert raw.recv(1000) == b""
        assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT + 1.5


def test_a_handshake_that_stalls_is_closed(site: Site) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    with socket.create_connection(("127.0.0.1", site.port), 5) as raw:
        raw.sendall(outgoing.read()[:50])
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while raw.recv(1000):
                pass
        assert time.monotonic() - started < TIMEOUT + 1.5


@pytest.mark.parametrize(
    "data",
    [os.urandom(500), b"\x16\x03\x01\xff\xff" + bytes(100), b"\x80\x2e\x01\x00\x02", b"\0" * 300],
    ids=["random", "a_wrong_record", "ssl_2", "zeros"],
)
def test_garbage_on_the_tls_port_is_closed(data: bytes, site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 5) as raw:
        raw.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while more := raw.recv(1000):
                answer += more
    assert answer == b"" or answer[0] == 0x15, "neither nothing nor a TLS alert"


def test_plain_http_on_the_tls_port_is_closed_and_never_served(site: Site, keys: Keys) -> None:
    with socket.create_connection(("127.0.0.1", site.port), 5) as raw:
        raw.sendall(request("GET", "/api/version", keys.default))
        answer = b""
        with contextlib.suppress(ConnectionError):
            while more := raw.recv(1000):
                answer += more
    assert b"200 OK" not in answer
    assert site.upstream.reached() == b""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", site.port), 5) as raw, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(raw)


def test_an_idle_connection_is_closed_after_the_idle_time_out(client: Client, keys: Keys) -> None:
    assert client.request(request("GET", "/api/version", keys.default)).status == 200
    started = time.monotonic()
    client.end(5)
    assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT + 1.5


def test_a_slow_body_is_taken_as_long_as_it_moves(client: Client, site: Site, keys: Keys) -> None:
    body = b'{"a":1}'
    client.send(request("POST", "/api/chat", keys.default, f"Content-Length: {len(body)}"))
    drip(client, body, 0.4)
    assert client.response("POST").status == 200
    assert site.upstream.requests[0].body == body


def test_a_body_that_stops_is_cut_on_both_sides(client: Client, site: Site, keys: Keys) -> None:
    site.upstream.play()
    client.send(
        request("POST", "/api/blobs/sha256:" + "0" * 64, keys.manage, "Content-Length: 10") + b"12345"
    )
    exchange = site.upstream.next()
    started = time.monotonic()
    check_refusal(client.response("POST"), 408, "malformed_request")
    assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT + 1.5
    exchange.left_at(2)


def test_waiting_for_a_model_is_not_idleness(client: Client, site: Site, keys: Keys) -> None:
    def load_for_long(exchange: Exchange) -> None:
        exchange.read_body()
        time.sleep(2.5 * TIMEOUT)
        exchange.send(message("200 OK", [("Transfer-Encoding", "chunked")], length=False))
        exchange.chunk(b"a")
        time.sleep(2.5 * TIMEOUT)
        exchange.chunk(b"b")
        exchange.send(b"0\r\n\r\n")

    site.upstream.answer = load_for_long
    answer = client.request(request("POST", "/api/chat", keys.default, body=b"{}"))
    assert (answer.status, answer.body, answer.torn) == (200, b"ab", None)


TOO_LARGE = {
    "one_field_of_100_kb": (["X-A: " + "a" * 100_000], 431, "headers_too_large"),
    "a_name_of_100_kb": (["X-" + "a" * 100_000 + ": 1"], 431, "headers_too_large"),
    "fields_of_100_kb": ([f"X-{n}: {'a' * 1000}" for n in range(100)], 431, "headers_too_large"),
    "ten_thousand_fields": (["X-A: 1"] * 10_000, 431, "headers_too_large"),
    "just_too_large": (["X-A: " + "a" * 33 * 1024], 431, "headers_too_large"),
}


@pytest.mark.parametrize(("fields", "status", "code"), TOO_LARGE.values(), ids=TOO_LARGE)
@pytest.mark.parametrize("step", [0, 1000])
def test_headers_that_are_too_large_are_answered_431(
    fields: list[str], status: int, code: str, step: int, client: Client, site: Site, keys: Keys
) -> None:
    raw = request("GET", "/api/version", keys.default, *fields)
    with contextlib.suppress(OSError):
        client.send_in_pieces(raw, step or len(raw))
    check_refusal(client.response(), status, code)
    assert site.upstream.reached() == b""


@pytest.mark.parametrize("length", [8_001, 20_000, 100_000])
def test_a_target_that_is_too_long_is_answered_414(
    length: int, client: Client, site: Site, keys: Keys
) -> None:
    with contextlib.suppress(OSError):
        client.send(request("GET", "/api/version?" + "a" * length, keys.default))
    check_refusal(client.response(), 414, "malformed_request")
    assert site.upstream.reached() == b""


def test_headers_within_the_limit_go_through(client: Client, site: Site, keys: Keys) -> None:
    fields = ["X-A: " + "a" * 30_000]
    assert client.request(request("GET", "/api/version", keys.default, *fields)).status == 200
    assert site.upstream.requests[0].all("x-a") == ["a" * 30_000]
    assert client.request(request("GET", "/api/version?" + "a" * 7_900, keys.default)).status == 200


def test_one_connection_too_many_is_answered_503_and_the_next_served(site: Site, keys: Keys) -> None:
    time.sleep(0.3)
    held = [site.connect() for _ in range(MAX_CONNECTIONS)]
    surplus = site.connect()
    with contextlib.suppress(OSError):
        surplus.send(request("GET", "/api/version", keys.default))
    answer = surplus.response()
    check_refusal(answer, 503, "queue_full")
    assert answer.header("retry-after")
    assert held[0].request(request("GET", "/api/version", keys.default)).status == 200
    for client in (*held, surplus):
        client.close()
    assert site.upstream.requests[0].target == "/api/version"
    assert len(site.upstream.requests) == 1


def test_failed_handshakes_take_no_place(site: Site, keys: Keys) -> None:
    for _ in range(3 * MAX_CONNECTIONS):
        with (
            socket.create_connection(("127.0.0.1", site.port), 5) as raw,
            contextlib.suppress(ConnectionError),
        ):
            raw.sendall(b"not a handshake\r\n\r\n")
            raw.recv(100)
    time.sleep(0.3)
    held = [site.connect() for _ in range(MAX_CONNECTIONS)]
    for client in held:
        assert client.request(request("GET", "/api/version", keys.default)).status == 200
        client.close()


def test_refused_requests_take_no_place(site: Site, keys: Keys) -> None:
    """Whatever a connection ended with, its place is free again when it is closed."""
    good, bad = request("GET", "/api/version", keys.default), b"\0garbage\r\n\r\n"
    for raw in [good + bad, bad, good + b"GET / HTTP/1.0\r\n\r\n"] * MAX_CONNECTIONS:
        with contextlib.closing(site.connect()) as client:
            client.send(raw)
            client.response()
    time.sleep(0.3)
    held = [site.connect() for _ in range(MAX_CONNECTIONS)]
    for client in held:
        assert client.request(good).status == 200
        client.close()


def test_upstream_time_is_not_counted_as_the_clients(client: Client, site: Site, keys: Keys) -> None:
    """After a long answer the idle time starts anew."""

    def answer_late(exchange: Exchange) -> None:
        time.sleep(1.5 * TIMEOUT)
        exchange.send(OK)

    site.upstream.answer = answer_late
    assert client.request(request("GET", "/api/version", keys.default)).status == 200
    time.sleep(TIMEOUT / 2)
    assert client.request(request("GET", "/api/version", keys.default)).status == 200
