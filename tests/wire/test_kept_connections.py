"""Many requests on one connection: kept, pipelined, refused in between, and never mixed up."""

from __future__ import annotations

import time

import pytest

from .conftest import Connect, over_tls_and_plain, settled
from .messages import check_refusal, request
from .site import Keys, Site
from .upstream import Exchange, Upstream, message

BLOB = "/api/blobs/sha256:" + "0" * 64
MIB = 1 << 20


def test_requests_sent_at_once_are_answered_in_order(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    def echo(exchange: Exchange) -> None:
        body = exchange.read_body()
        if exchange.target.endswith("1"):
            time.sleep(0.1)
        exchange.send(message("200 OK", [], exchange.target.encode() + body))

    upstream.answer = echo
    client = connect()
    client.send(
        request("GET", "/api/tags?1", keys.read)
        + request("POST", "/api/show?2", keys.read, body=b"two")
        + request("POST", "/api/show?3", keys.read, "Transfer-Encoding: chunked")
        + b"5\r\nthree\r\n0\r\n\r\n"
        + request("GET", "/api/tags?4", keys.read)
    )
    assert [client.response().body for _ in range(4)] == [
        b"/api/tags?1",
        b"/api/show?2two",
        b"/api/show?3three",
        b"/api/tags?4",
    ]


def test_pipelined_requests_do_not_share_a_credential(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client = connect()
    client.send(request("POST", "/api/show", keys.read, body=b"{}") + request("GET", "/api/tags"))
    assert [client.response().status, client.response().status] == [200, 401]
    assert len(upstream.requests) == 1


def test_connection_close_is_obeyed(connect: Connect, keys: Keys) -> None:
    client = connect()
    answer = client.request(request("GET", "/api/tags", keys.read, "Connection: close"))
    assert answer.status == 200
    assert answer.header("connection") == "close"
    client.end(2)


def test_a_connection_serves_many_requests(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    client = connect()
    for number in range(50):
        assert client.request(request("GET", f"/api/tags?{number}", keys.read)).status == 200
    assert len({id(exchange.connection) for exchange in upstream.requests}) == 1


def test_leading_empty_lines_are_forgiven(connect: Connect, keys: Keys) -> None:
    """RFC 9112, 2.2: a server should ignore at least one empty line before the request line."""
    client = connect()
    assert client.request(b"\r\n" + request("GET", "/api/tags", keys.read)).status == 200
    assert client.request(b"\r\n" + request("GET", "/api/tags", keys.read)).status == 200


def test_a_hundred_requests_sent_at_once_are_all_answered(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.answer = lambda exchange: exchange.send(message("200 OK", [], exchange.target.encode()))
    client = connect()
    client.send(b"".join(request("GET", f"/api/tags?{number}", keys.read) for number in range(100)))
    assert [client.response().body for _ in range(100)] == [b"/api/tags?%d" % n for n in range(100)]


@over_tls_and_plain
def test_answers_that_nobody_reads_stop_the_requests_behind_them(
    site: Site, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    answered = [0]

    def large(exchange: Exchange) -> None:
        exchange.send(message("200 OK", [], bytes(MIB)))
        answered[0] += 1

    upstream.answer = large
    client, rss = connect(receive_buffer=65536), site.rss()
    client.send(request("GET", "/api/tags", keys.read) * 100)
    assert settled(lambda: answered[0]) < 50, "the proxy takes in answers that nobody reads"
    assert site.rss() - rss < 16 * MIB
    for _ in range(100):
        assert client.response().received == MIB


def test_what_follows_a_close_is_not_served(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    client = connect()
    last = request("GET", "/api/tags", keys.read, "Connection: close")
    assert client.request(last + request("GET", "/api/ps", keys.read)).header("connection") == "close"
    client.end(5)
    assert [exchange.target for exchange in upstream.requests] == ["/api/tags"]


@pytest.mark.parametrize("moment", ["with_the_head", "after_the_refusal"])
def test_the_small_body_of_a_refused_request_is_not_read_as_the_next(
    moment: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    body = request("GET", "/api/tags", keys.every)
    refused = request("POST", "/api/show", None, f"Content-Length: {len(body)}")
    client = connect()
    client.send(refused + body if moment == "with_the_head" else refused)
    answer = client.response("POST")
    check_refusal(answer, 401, "missing_credentials")
    assert upstream.reached() == b""
    if answer.header("connection") != "close":
        client.send((b"" if moment == "with_the_head" else body) + request("GET", "/api/ps", keys.read))
        assert client.response().status == 200
        assert [exchange.target for exchange in upstream.requests] == ["/api/ps"]


def test_a_refused_request_between_two_good_ones_stops_neither(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client = connect()
    client.send(
        request("POST", "/api/show", keys.read, body=b"1")
        + request("POST", "/api/chat", keys.read, body=b"2")
        + request("POST", "/api/show", keys.read, body=b"3")
    )
    assert [client.response().status for _ in range(3)] == [200, 403, 200]
    assert [exchange.body for exchange in upstream.requests] == [b"1", b"3"]


def test_a_malformed_request_behind_a_slow_one_waits_its_turn(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    client = connect()
    client.send(request("GET", "/api/tags", keys.read))
    exchange = upstream.next()
    client.send(b"GET /api/tags HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    time.sleep(0.1)
    exchange.send(message("200 OK", [], b"first"))
    exchange.finish()
    assert client.response().body == b"first"
    check_refusal(client.response(), 400, "malformed_request")


def test_an_upload_answered_early_leaves_nothing_behind_for_the_next_request(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    """The rest of the body looks like a request, and must not become one."""
    hidden = request("GET", "/api/tags", keys.every)
    upstream.answer = lambda exchange: exchange.send(message("400 Bad Request", [], b"early"))
    client = connect()
    client.send(request("POST", BLOB, keys.manage, f"Content-Length: {10 + len(hidden)}") + bytes(10))
    answer = client.response("POST")
    assert answer.body == b"early"
    client.send(hidden)
    if answer.header("connection") == "close":
        client.end(5)
    else:
        upstream.answer = lambda exchange: exchange.send(message("200 OK", [], b"{}"))
        assert client.request(request("GET", "/api/ps", keys.read)).body == b"{}"
    assert "/api/tags" not in [exchange.target for exchange in upstream.requests]
