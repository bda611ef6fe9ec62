"""Requests behind others on one connection: their bodies, heads and time-outs are judged as if alone."""

from __future__ import annotations

import pytest

from .conftest import Connect, StartSite, over_tls_and_plain
from .messages import check_refusal, chunked, request
from .site import Keys, Site
from .upstream import Upstream, message

IDLE = 1.0


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite) -> Site:
    return start_site(listen={"idle_timeout": "1s"})


@pytest.fixture(scope="module")
def plain_site(start_site: StartSite) -> Site:
    return start_site(listen={"idle_timeout": "1s"}, tls={"mode": "off"})


def echo(upstream: Upstream) -> None:
    upstream.answer = lambda exchange: exchange.send(message("200 OK", [], exchange.read_body() or b"none"))


@over_tls_and_plain
@pytest.mark.parametrize("before", [15, 16, 17, 40])
def test_a_body_that_comes_later_behind_many_requests_is_taken(
    before: int, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    echo(upstream)
    client = connect()
    client.send(
        request("GET", "/api/version", keys.read) * before
        + request("POST", "/api/generate", keys.default, "Content-Length: 5")
    )
    assert [client.response().body for _ in range(before)] == [b"none"] * before
    client.send(b"hello")
    assert client.response("POST").body == b"hello"


@over_tls_and_plain
def test_a_small_chunked_body_right_behind_a_large_one_is_served(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    echo(upstream)
    client = connect()
    large = bytes(300_000)
    client.send(
        request("POST", "/api/generate", keys.default, body=large)
        + request("POST", "/api/generate", keys.default, "Transfer-Encoding: chunked")
        + chunked(b"z")
    )
    assert [client.response("POST").body, client.response("POST").body] == [large, b"z"]


@over_tls_and_plain
@pytest.mark.parametrize("behind", ["a_request", "a_body"])
def test_headers_that_are_too_large_are_answered_431_behind_a_request_as_well(
    behind: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    first = request("GET", "/api/version", keys.read)
    if behind == "a_body":
        first = request("POST", "/api/show", keys.read, body=b"{}")
    client = connect()
    client.send(first + request("GET", "/api/tags", keys.read, "X-Big: " + "b" * 150_000))
    assert client.response().status == 200
    check_refusal(client.response(), 431, "headers_too_large")
    assert [exchange.target for exchange in upstream.requests] != ["/api/tags"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]], ids=["plain", "expects_continue"])
def test_a_body_that_waits_for_its_turn_does_not_cut_the_stream_before_it(
    expect: list[str], connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    client = connect()
    client.send(
        request("POST", "/api/chat", keys.default, body=b"{}")
        + request("POST", "/api/generate", keys.default, "Content-Length: 5", *expect)
    )
    exchange = upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", [("Transfer-Encoding", "chunked")], length=False))
    head = client.head("POST")
    client.timeout = 2.5 * IDLE
    with pytest.raises(TimeoutError):
        client.piece(head)
    exchange.chunk(b"late")
    exchange.send(b"0\r\n\r\n")
    echo(upstream)
    exchange.finish()
    assert (client.piece(head), client.piece(head), head.torn) == (b"late", b"", None)
    if expect:
        assert client.head("POST").status == 100
    client.send(b"hello")
    assert client.response("POST").body == b"hello"
