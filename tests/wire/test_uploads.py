"""Uploads: `Expect: 100-continue`, answers that come before the end, and pressure that reaches the sender."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .client import Client
from .conftest import Connect, over_tls_and_plain, settled
from .messages import check_refusal, request
from .site import Keys, Site
from .upstream import OK, Exchange, Upstream, message

BLOB = "/api/blobs/sha256:" + "0" * 64
MIB = 1 << 20


def upload_head(key: str | None, *headers: str) -> bytes:
    return request("POST", BLOB, key, "Transfer-Encoding: chunked", *headers)


class Sender(threading.Thread):
    """Sends a chunked body in the background, as long as the connection takes it."""

    def __init__(self, client: Client, total: int, step: int = 65536, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.client, self.total, self.step, self.pause = client, total, step, pause
        self.sent = 0
        self.whole = False

    def run(self) -> None:
        chunk = b"%x\r\n" % self.step + bytes(self.step) + b"\r\n"
        with contextlib.suppress(OSError, ValueError):
            while self.sent < self.total:
                self.client.send(chunk)
                self.sent += self.step
                time.sleep(self.pause)
            self.client.send(b"0\r\n\r\n")
            self.whole = True


Upload = Callable[..., Sender]


@pytest.fixture
def upload(connect: Connect) -> Iterator[Upload]:
    """Start uploads in the background; they are over before their sockets are closed (and reused)."""
    senders: list[Sender] = []

    def start(client: Client, total: int, **speed: Any) -> Sender:
        senders.append(Sender(client, total, **speed))
        senders[-1].start()
        return senders[-1]

    yield start
    for sender in senders:
        with contextlib.suppress(OSError):
            sender.client.sock.shutdown(socket.SHUT_RDWR)
        sender.join(5)
        assert not sender.is_alive()


def test_continue_is_sent_once_the_caller_is_accepted(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client = connect()
    client.send(request("POST", "/api/show", keys.read, "Expect: 100-continue", "Content-Length: 2"))
    interim = client.head("POST")
    assert (interim.status, interim.headers) == (100, [])
    client.send(b"{}")
    assert client.response("POST").status == 200
    assert upstream.requests[0].body == b"{}"
    assert client.request(request("GET", "/api/tags", keys.read)).status == 200


def test_continue_is_not_needed_when_the_body_comes_anyway(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client = connect()
    answer = client.request(request("POST", "/api/show", keys.read, "expect: 100-Continue", body=b"{}"))
    assert answer.status == 200
    assert upstream.requests[0].body == b"{}"


@pytest.mark.parametrize("refusal", ["no_key", "unknown_key", "wrong_scope", "unknown_route", "bad_path"])
def test_a_refusal_comes_instead_of_continue(
    refusal: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    key = {"no_key": None, "unknown_key": keys.unknown, "wrong_scope": keys.read}.get(refusal, keys.every)
    path = {"unknown_route": "/api/nothing", "bad_path": "/api//show"}.get(refusal, BLOB)
    status = {"wrong_scope": 403, "unknown_route": 404, "bad_path": 400}.get(refusal, 401)
    client = connect()
    client.send(request("POST", path, key, "Expect: 100-continue", f"Content-Length: {1 << 30}"))
    head = client.head("POST")
    while client.piece(head):
        pass
    check_refusal(head, status, None)
    assert head.header("connection") == "close"
    assert upstream.reached() == b""


@over_tls_and_plain
def test_a_refusal_is_readable_while_a_large_upload_goes_on(
    connect: Connect, keys: Keys, upstream: Upstream, upload: Upload
) -> None:
    """Ollama's own clients send chunked without Expect: a reset would hide the refusal."""
    client = connect()
    client.send(upload_head(keys.read))
    upload(client, 64 * MIB)
    time.sleep(0.2)
    check_refusal(client.response("POST"), 403, "scope_denied")
    assert upstream.reached() == b""


@over_tls_and_plain
@pytest.mark.parametrize("size", [1, 8])
def test_a_refusal_is_readable_for_a_client_that_sends_all_first(
    size: int, connect: Connect, keys: Keys, upstream: Upstream, upload: Upload
) -> None:
    client = connect()
    client.send(upload_head(keys.unknown))
    sender = upload(client, size * MIB)
    sender.join(20)
    assert sender.whole, f"the connection broke after {sender.sent} bytes"
    check_refusal(client.response("POST"), 401, "invalid_credentials")
    assert upstream.reached() == b""


def test_a_refused_upload_that_never_ends_is_cut(
    site: Site, connect: Connect, keys: Keys, upstream: Upstream, upload: Upload
) -> None:
    client = connect()
    client.send(upload_head(keys.unknown))
    check_refusal(client.response("POST"), 401, "invalid_credentials")
    started, rss = time.monotonic(), site.rss()
    # With pauses, as the end is to come by time; without them, the two would take both processors for it.
    sender = upload(client, 1 << 40, step=8192, pause=0.001)
    sender.join(20)
    assert not sender.is_alive(), "a refused client may send for ever"
    assert time.monotonic() - started < 15
    assert sender.sent > 2 * 8 * MIB
    assert site.rss() - rss < 8 * MIB


@over_tls_and_plain
@pytest.mark.parametrize("ending", ["keeps", "closes"])
def test_an_early_answer_reaches_the_client_in_the_middle_of_its_upload(
    ending: str, connect: Connect, keys: Keys, upstream: Upstream, upload: Upload
) -> None:
    early = message("400 Bad Request", [("Content-Type", "application/json")], b'{"error":"digest mismatch"}')

    def answer_early(exchange: Exchange) -> None:
        exchange.read_some()
        exchange.send(early)
        if ending == "closes":
            exchange.connection.sock.shutdown(1)
        while True:
            exchange.read_some()

    upstream.answer = answer_early
    client = connect()
    client.send(upload_head(keys.manage))
    upload(client, 64 * MIB)
    answer = client.response("POST")
    assert (answer.status, answer.body, answer.torn) == (400, b'{"error":"digest mismatch"}', None)
    assert len(upstream.requests) == 1
    upstream.answer = lambda exchange: exchange.send(OK)
    assert connect().request(request("GET", "/api/tags", keys.read)).status == 200
    assert upstream.requests[-1].connection is not upstream.requests[0].connection


def test_an_early_answer_on_continue_needs_no_body(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    upstream.answer = lambda exchange: exchange.send(message("409 Conflict", [], b"no"))
    client = connect()
    client.send(request("POST", BLOB, keys.manage, "Expect: 100-continue", f"Content-Length: {MIB}"))
    answer = client.response("POST")
    assert (answer.status, answer.body) == (409, b"no")


@over_tls_and_plain
def test_a_stalled_upstream_stops_the_upload_and_memory_stays_flat(
    site: Site, connect: Connect, keys: Keys, upstream: Upstream, upload: Upload
) -> None:
    upstream.play()
    total = 96 * MIB
    client = connect()
    rss = site.rss()
    client.send(upload_head(keys.manage))
    sender = upload(client, total)
    exchange = upstream.next()
    assert settled(lambda: sender.sent) < total / 2, "the proxy took the upload in without anybody reading it"
    assert site.rss() - rss < 16 * MIB
    taken, tail = 0, b""
    while not tail.endswith(b"\r\n0\r\n\r\n"):
        data = exchange.read_some()
        taken += len(data)
        tail = (tail + data)[-7:]
    assert taken >= total
    exchange.send(OK)
    exchange.finish()
    assert client.response("POST").status == 200
    assert site.rss() - rss < 16 * MIB


@over_tls_and_plain
def test_a_client_that_does_not_read_stops_the_upstream_and_memory_stays_flat(
    site: Site, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    total, sent = 96 * MIB, [0]

    def flood(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.connection.sock.settimeout(30)
        exchange.send(message("200 OK", [("Content-Length", str(total))], length=False))
        while sent[0] < total:
            exchange.send(bytes(65536))
            sent[0] += 65536

    upstream.answer = flood
    client = connect(receive_buffer=65536)
    rss = site.rss()
    client.send(request("GET", "/api/tags", keys.read))
    head = client.head()
    assert settled(lambda: sent[0]) < total / 2, "the proxy took the answer in without anybody reading it"
    assert site.rss() - rss < 16 * MIB
    while client.piece(head):
        head.pieces.clear()
    assert (head.received, head.torn) == (total, None)
    assert site.rss() - rss < 16 * MIB
