"""SIGTERM: nothing new is taken, what runs is finished, and then the process ends with 0."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest

from .client import Client
from .conftest import StartSite, until
from .messages import request
from .site import Keys, Site
from .upstream import Exchange, message

CHUNKED = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]


def begin_stream(site: Site, keys: Keys) -> tuple[Client, Exchange]:
    """A chat whose first chunk has arrived."""
    site.upstream.play()
    client = site.connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = site.upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", CHUNKED, length=False))
    exchange.chunk(b"first\n")
    return client, exchange


def refused(site: Site) -> bool:
    try:
        socket.create_connection(("127.0.0.1", site.port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_refused(site: Site) -> None:
    deadline = time.monotonic() + 3
    while not refused(site):
        assert time.monotonic() < deadline, "the listener stays open"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_in_flight_finishes(number: signal.Signals, start_site: StartSite, keys: Keys) -> None:
    site = start_site()
    client, exchange = begin_stream(site, keys)
    head = client.head("POST")
    assert client.piece(head) == b"first\n"
    site.process.send_signal(number)
    wait_until_refused(site)
    status, body = site.ops("/readyz")
    assert status == 503, body
    assert site.ops("/healthz")[0] == 200
    exchange.chunk(b"second\n")
    exchange.send(b"0\r\n\r\n")
    exchange.finish()
    while client.piece(head):
        pass
    assert (head.body, head.torn) == (b"first\nsecond\n", None)
    client.end(5)
    assert site.exit_code() == 0


def test_a_request_that_waits_for_its_first_byte_finishes(start_site: StartSite, keys: Keys) -> None:
    site = start_site()
    site.upstream.play()
    client = site.connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = site.upstream.next()
    site.terminate()
    wait_until_refused(site)
    exchange.read_body()
    exchange.send(message("200 OK", [], b"late"))
    exchange.finish()
    answer = client.response()
    assert (answer.status, answer.body, answer.header("connection")) == (200, b"late", "close")
    assert site.exit_code() == 0


def test_an_upload_in_flight_finishes(start_site: StartSite, keys: Keys) -> None:
    site = start_site()
    client = site.connect()
    body = bytes(100_000)
    client.send(request("POST", "/api/blobs/sha256:" + "0" * 64, keys.manage, "Content-Length: 100000"))
    client.send(body[:50_000])
    time.sleep(0.1)
    site.terminate()
    wait_until_refused(site)
    client.send(body[50_000:])
    assert client.response("POST").status == 200
    assert site.exit_code() == 0


def test_a_request_on_a_kept_connection_is_still_served_and_then_closed(
    start_site: StartSite, keys: Keys
) -> None:
    site = start_site()
    streaming, exchange = begin_stream(site, keys)
    kept = site.connect()
    site.upstream.answer = lambda other: other.send(message("200 OK", [], b"{}"))
    assert kept.request(request("GET", "/api/tags", keys.read)).header("connection") != "close"
    site.terminate()
    wait_until_refused(site)
    answer = kept.request(request("GET", "/api/tags", keys.read))
    assert (answer.status, answer.header("connection")) == (200, "close")
    kept.end(5)
    exchange.send(b"0\r\n\r\n")
    exchange.finish()
    assert streaming.response().torn is None
    assert site.exit_code() == 0


def test_a_request_that_meets_the_end_is_served(start_site: StartSite, keys: Keys) -> None:
    """Nothing else is in flight: only the connections, new and kept, whose requests are on their way."""
    site = start_site()
    fresh, kept = site.connect(), site.connect()
    assert kept.request(request("GET", "/api/tags", keys.read)).status == 200
    site.terminate()
    wait_until_refused(site)
    time.sleep(0.1)
    for client in (fresh, kept):
        answer = client.request(request("GET", "/api/tags", keys.read))
        assert (answer.status, answer.header("connection")) == (200, "close")
        client.end(5)
    assert site.exit_code() == 0


def test_who_is_connected_but_not_yet_accepted_is_served(start_site: StartSite, keys: Keys) -> None:
    """The connection is in the kernel's queue when the signal comes, its TLS handshake still to be done."""
    site = start_site()
    site.process.send_signal(signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", site.port), 5) as raw:
        site.terminate()
        site.process.send_signal(signal.SIGCONT)
        wait_until_refused(site)
        assert site.trust
        with site.trust.wrap_socket(raw, server_hostname="localhost") as wrapped:
            wrapped.sendall(request("GET", "/api/tags", keys.read))
            assert wrapped.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    assert site.exit_code() == 0


def test_a_handshake_that_does_not_go_on_does_not_hold_the_end_up(start_site: StartSite) -> None:
    site = start_site()
    with socket.create_connection(("127.0.0.1", site.port), 5):
        time.sleep(0.1)
        started = time.monotonic()
        site.terminate()
        assert site.exit_code() == 0
        assert time.monotonic() - started < 5


def test_idle_connections_do_not_hold_the_end_up(start_site: StartSite, keys: Keys) -> None:
    site = start_site(listen={"drain_timeout": "60s"})
    clients = [site.connect() for _ in range(5)]
    for client in clients[:3]:
        assert client.request(request("GET", "/api/tags", keys.read)).status == 200
    started = time.monotonic()
    site.terminate()
    assert site.exit_code() == 0
    assert time.monotonic() - started < 5


def test_a_second_signal_ends_at_once(start_site: StartSite, keys: Keys) -> None:
    site = start_site(listen={"drain_timeout": "60s"})
    client, exchange = begin_stream(site, keys)
    head = client.head("POST")
    site.terminate()
    wait_until_refused(site)
    started = time.monotonic()
    site.terminate()
    assert site.exit_code() == 1
    assert time.monotonic() - started < 2
    while client.piece(head):
        pass
    assert head.torn, "a stream that was cut ended as if it were whole"
    exchange.left_at(2)


def test_a_stream_that_outlasts_the_time_out_is_cut_and_the_exit_code_says_so(
    start_site: StartSite, keys: Keys
) -> None:
    site = start_site(listen={"drain_timeout": "500ms"})
    client, exchange = begin_stream(site, keys)
    head = client.head("POST")
    started = time.monotonic()
    site.terminate()
    assert site.exit_code() == 1
    assert 0.4 < time.monotonic() - started < 4
    while client.piece(head):
        pass
    assert head.torn
    exchange.left_at(2)


def in_the_kernel(port: int) -> int:
    """Bytes from this port that wait in the kernel, on either side of the connection."""
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        to_send, to_read = (int(number, 16) for number in queues.split(":"))
        if local.endswith(f":{port:04X}"):
            waiting += to_send
        elif remote.endswith(f":{port:04X}"):
            waiting += to_read
    return waiting


def test_the_end_of_an_answer_that_was_not_taken_counts_as_cut(start_site: StartSite, keys: Keys) -> None:
    """The answer is complete and in the proxy's buffer; only the client has not taken it yet."""
    site = start_site(listen={"drain_timeout": "500ms"}, tls={"mode": "off"})
    site.upstream.play()
    client = site.connect(receive_buffer=4096)
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = site.upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", CHUNKED, length=False))
    exchange.chunk(bytes(1 << 19))
    sent = 1 << 19

    def taken() -> bool:
        return in_the_kernel(site.port) >= sent

    while True:
        exchange.chunk(bytes(49152))  # less than what stops the proxy from reading on
        sent += 49152
        try:
            until(taken, 0.2)
        except AssertionError:
            break
        assert sent < 64 << 20
    exchange.send(b"0\r\n\r\n")
    exchange.finish()
    assert site.wait_for_metric("ollama_proxy_requests_in_flight", 0) == 0
    site.terminate()
    assert site.exit_code() == 1
    answer = client.response("POST")
    assert answer.torn
    assert len(answer.body) < sent
