"""Connections to Ollama are kept and reused, and never in a doubtful state."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from .conftest import Connect, StartSite, until
from .messages import check_refusal, chunked, request
from .site import Keys, Site
from .upstream import OK, Exchange, Upstream, message, respond

BLOB = "/api/blobs/sha256:" + "0" * 64


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite) -> Site:
    """A proxy of this file's own, so that its pool holds what the tests put there."""
    return start_site()


@pytest.fixture(autouse=True)
def empty_pool(site: Site) -> None:
    site.upstream.close_idle()
    site.upstream.forget()
    site.upstream.connections.clear()


@pytest.fixture
def warm(site: Site, connect: Connect, keys: Keys, upstream: Upstream) -> Callable[[], None]:
    """Leaves one idle connection in the pool and forgets how it came there."""

    def make() -> None:
        assert connect().request(request("GET", "/api/version", keys.read)).status == 200
        assert site.wait_for_metric("ollama_proxy_requests_in_flight", 0) == 0
        assert len(upstream.open_connections()) == 1
        upstream.requests.clear()

    return make


def test_one_connection_serves_one_request_after_the_other(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    for _ in range(10):
        client = connect()
        for _ in range(3):
            assert client.request(request("POST", "/api/chat", keys.default, body=b"{}")).status == 200
        client.close()
    assert len(upstream.connections) == 1


def test_requests_at_the_same_time_have_connections_of_their_own(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.play()
    clients = [connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.send(request("POST", f"/api/chat?{number}", keys.default, body=b"{}"))
    exchanges = [upstream.next() for _ in clients]
    assert len({id(exchange.connection) for exchange in exchanges}) == 20
    for exchange in reversed(exchanges):
        exchange.read_body()
        exchange.send(message("200 OK", [], exchange.target.encode()))
        exchange.finish()
    for number, client in enumerate(clients):
        assert client.response().body == f"/api/chat?{number}".encode()


def test_an_idle_connection_that_died_is_noticed(
    warm: Callable[[], None], connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    """Pull is never sent twice, so this works only where the dead connection was dropped when it died."""
    warm()
    upstream.close_idle()
    assert connect().request(request("POST", "/api/pull", keys.manage, body=b"{}")).status == 200
    assert len(upstream.requests) == 1


def die_once(upstream: Upstream, *, at: str, how: str) -> None:
    """The connection that a request reuses dies under it; the next one works."""
    first = [True]

    def answer(exchange: Exchange) -> None:
        if not first.pop() if first else True:
            exchange.read_body()
            exchange.send(OK)
            return
        if at == "end":
            exchange.read_body()
        exchange.close() if how == "closes" else exchange.reset()

    upstream.answer = answer


RETRIED = {
    "get": ("GET", "/api/tags", None, b""),
    "small_generate": ("POST", "/api/generate", b'{"model":"m"}', b""),
    "small_chat_completion": ("POST", "/v1/chat/completions", b'{"model":"m"}', b""),
    "chunked_chat": ("POST", "/api/chat", None, b'{"model":"m"}'),
}


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("at", ["head", "end"])
@pytest.mark.parametrize(("method", "path", "body", "chunks"), RETRIED.values(), ids=RETRIED)
def test_a_request_on_a_reused_connection_that_dies_is_sent_again(
    method: str,
    path: str,
    body: bytes | None,
    chunks: bytes,
    at: str,
    how: str,
    warm: Callable[[], None],
    connect: Connect,
    keys: Keys,
    upstream: Upstream,
) -> None:
    warm()
    die_once(upstream, at=at, how=how)
    raw = request(method, path, keys.default, *(["Transfer-Encoding: chunked"] if chunks else []), body=body)
    answer = connect().request(raw + (chunked(chunks) if chunks else b""))
    assert answer.status == 200
    assert len(upstream.requests) == 2
    assert upstream.requests[1].body == (body or chunks)
    assert upstream.requests[0].head == upstream.requests[1].head


NOT_RETRIED = {
    "pull": ("POST", "/api/pull", b"{}"),
    "create": ("POST", "/api/create", b"{}"),
    "copy": ("POST", "/api/copy", b"{}"),
    "delete": ("DELETE", "/api/delete", b"{}"),
    "push": ("POST", "/api/push", b"{}"),
    "signout": ("POST", "/api/signout", b"{}"),
    "a_large_body": ("POST", "/api/generate", b'{"model":"' + b"m" * 2_000_000 + b'"}'),
}


@pytest.mark.parametrize(("method", "path", "body"), NOT_RETRIED.values(), ids=NOT_RETRIED)
def test_what_may_not_happen_twice_is_not_sent_again(
    method: str,
    path: str,
    body: bytes,
    warm: Callable[[], None],
    connect: Connect,
    keys: Keys,
    upstream: Upstream,
) -> None:
    warm()
    die_once(upstream, at="end", how="closes")
    answer = connect().request(request(method, path, keys.every, body=body))
    check_refusal(answer, 502, "upstream_unreachable")
    assert len(upstream.requests) == 1


def test_a_fresh_connection_that_dies_is_not_tried_again(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    die_once(upstream, at="end", how="closes")
    check_refusal(connect().request(request("GET", "/api/tags", keys.read)), 502, "upstream_unreachable")
    assert len(upstream.requests) == 1


def test_a_second_death_is_not_followed_by_a_third_try(
    warm: Callable[[], None], connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    warm()
    upstream.answer = Exchange.close
    check_refusal(connect().request(request("GET", "/api/tags", keys.read)), 502, "upstream_unreachable")
    assert len(upstream.requests) == 2


def test_a_request_whose_answer_has_begun_is_not_sent_again(
    warm: Callable[[], None], connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    def half(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 2")
        exchange.close()

    warm()
    upstream.answer = half
    check_refusal(connect().request(request("GET", "/api/tags", keys.read)), 502, "upstream_protocol_error")
    assert len(upstream.requests) == 1


NOT_KEPT = {
    "says_close": message("200 OK", [("Connection", "close")], b"{}"),
    "says_close_in_a_list": message("200 OK", [("Connection", "x, Close")], b"{}"),
    "speaks_http_1_0": message("200 OK", [], b"{}").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "surplus_bytes": message("200 OK", [], b"{}") + b"surplus",
    "a_second_answer": message("200 OK", [], b"{}") + message("200 OK", [], b"stolen"),
    "a_body_after_no_content": message("204 No Content", [], length=False) + b"surplus",
    "a_second_answer_after_chunks": message("200 OK", [("Transfer-Encoding", "chunked")], length=False)
    + b"2\r\n{}\r\n0\r\n\r\n"
    + message("200 OK", [], b"stolen"),
}


@pytest.mark.parametrize("raw", NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_connection_in_a_doubtful_state_is_not_used_again(
    raw: bytes, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.answer = respond(raw)
    client = connect()
    assert client.request(request("GET", "/api/tags", keys.read)).status in (200, 204)
    upstream.answer = respond(message("200 OK", [], b"mine"))
    assert client.request(request("GET", "/api/version", keys.read)).body == b"mine"
    first, second = upstream.requests
    assert first.connection is not second.connection
    first.left_at(5)


def test_a_body_that_answers_head_is_not_the_next_answer(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.answer = respond(message("200 OK", [], b"a body that HEAD must not have"))
    client = connect()
    assert client.request(request("HEAD", "/api/tags", keys.read), "HEAD").body == b""
    upstream.answer = respond(message("200 OK", [], b"mine"))
    assert client.request(request("GET", "/api/version", keys.read)).body == b"mine"


def test_an_answer_that_nobody_asked_for_reaches_nobody(
    warm: Callable[[], None], connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    warm()
    idle = upstream.open_connections()[0]
    idle.sock.sendall(message("200 OK", [], b"unasked"))
    until(lambda: idle.ended, what="a connection with an answer that nobody asked for is kept")
    assert connect().request(request("GET", "/api/tags", keys.read)).body == b'{"version":"0.24.0"}'
    assert upstream.requests[0].connection is not idle


def test_an_upload_answered_early_does_not_leave_its_rest_to_the_next_request(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.answer = lambda exchange: exchange.send(message("400 Bad Request", [], b"early"))
    client = connect()
    client.send(request("POST", BLOB, keys.manage, "Content-Length: 100") + bytes(10))
    assert client.response("POST").body == b"early"
    upstream.answer = respond(OK)
    assert connect().request(request("GET", "/api/tags", keys.read)).status == 200
    assert upstream.requests[0].connection is not upstream.requests[-1].connection


def test_many_clients_in_turn_mix_nothing_up(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    def echo(exchange: Exchange) -> None:
        exchange.send(message("200 OK", [], exchange.target.encode() + exchange.read_body()))

    upstream.answer = echo
    wrong: list[bytes] = []

    def ask(number: int) -> None:
        client = connect()
        for turn in range(20):
            body = b"%d-%d" % (number, turn)
            got = client.request(request("POST", f"/api/chat?{number}", keys.default, body=body)).body
            if got != b"/api/chat?%d%s" % (number, body):
                wrong.append(got)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert len(upstream.requests) == 200
    assert len(upstream.connections) <= 10
