"""Answers of the upstream reach the client as they are, and as they come."""

from __future__ import annotations

import gzip
import time

import pytest

from .conftest import Connect, over_tls_and_plain
from .messages import request
from .site import ANSWER, Keys
from .upstream import OK, Exchange, Upstream, message, respond

CHUNKED = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]


def test_chunks_arrive_one_by_one_as_they_are_made(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    pause = 0.05
    lines = [b'{"message":{"content":"%d %s"},"done":false}\n' % (n, ANSWER.encode()) for n in range(10)]

    def stream(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", CHUNKED, length=False))
        for line in lines:
            time.sleep(pause)
            exchange.chunk(line)
        exchange.send(b"0\r\n\r\n")

    upstream.answer = stream
    answer = connect().request(request("POST", "/api/chat", keys.default, body=b"{}"))
    assert [data for _, data in answer.pieces] == lines
    gaps = [after - before for (before, _), (after, _) in zip(answer.pieces, answer.pieces[1:], strict=False)]
    assert min(gaps) > pause / 2, f"chunks came in bursts: {gaps}"


def test_the_head_arrives_before_the_first_chunk(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    upstream.play()
    client = connect()
    client.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    exchange = upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", CHUNKED, length=False))
    head = client.head("POST")
    assert head.status == 200
    exchange.chunk(b"x")
    assert client.piece(head) == b"x"
    exchange.send(b"0\r\n\r\n")
    assert client.piece(head) == b""
    assert head.torn is None
    exchange.finish()


SPLITS = [1, 2, 3, 7, 1000]


@pytest.mark.parametrize("step", SPLITS)
def test_an_answer_cut_anywhere_is_the_same_answer(
    step: int, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    body = bytes(range(256))
    wire = message("200 OK", CHUNKED, length=False)
    wire += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:200], body[200:]))
    wire += b"0\r\n\r\n"

    def dribble(exchange: Exchange) -> None:
        exchange.read_body()
        for at in range(0, len(wire), step):
            exchange.send(wire[at : at + step])

    upstream.answer = dribble
    client = connect()
    for _ in range(2):
        answer = client.request(request("POST", "/api/chat", keys.default, body=b"{}"))
        assert (answer.status, answer.body, answer.torn) == (200, body, None)


def test_answer_headers_keep_order_and_duplicates(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    theirs = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Date", "Tue, 24 Nov 2026 02:00:00 GMT"),
        ("Vary", "Origin"),
        ("X-Many", "1"),
        ("Server", "llama"),
        ("x-lower", "Kept As It Is"),
        ("Vary", "Accept"),
        ("X-Many", "2"),
        ("X-Latin", "caf\xe9"),
    ]
    upstream.answer = respond(message("200 OK", theirs, b"{}"))
    answer = connect().request(request("GET", "/api/tags", keys.read))
    ours = [(name.lower(), value) for name, value in answer.headers]
    assert [pair for pair in ours if pair in [(name.lower(), value) for name, value in theirs]] == [
        (name.lower(), value) for name, value in theirs
    ]
    assert len(answer.all("date")) == 1
    assert answer.header("x-request-id")


def test_hop_by_hop_headers_of_the_answer_stay_behind(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    theirs = [
        ("Connection", "keep-alive, X-Named"),
        ("X-Named", "hop"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
        ("X-Kept", "1"),
    ]
    upstream.answer = respond(message("200 OK", theirs, b"{}"))
    answer = connect().request(request("GET", "/api/tags", keys.read))
    names = {name.lower() for name, _ in answer.headers}
    assert "x-kept" in names
    assert not names & {"x-named", "keep-alive", "proxy-authenticate", "trailer", "upgrade"}


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 P R"]
)
def test_redirects_are_handed_through_not_followed(
    status: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.answer = respond(message(status, [("Location", "/api/delete")]))
    answer = connect().request(request("GET", "/api/tags", keys.read))
    assert (answer.status, answer.header("location")) == (int(status[:3]), "/api/delete")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "404 Not Found", "418 T", "500 E", "503 B"]
)
def test_errors_of_the_upstream_are_handed_through(
    status: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    body = b'{"error":"server busy, please try again."}'
    upstream.answer = respond(message(status, [("Content-Type", "application/json")], body))
    client = connect()
    answer = client.request(request("POST", "/api/chat", keys.default, body=b"{}"))
    assert (answer.status, answer.body) == (int(status[:3]), body)
    upstream.answer = respond(OK)
    assert client.request(request("GET", "/api/tags", keys.read)).status == 200


WITHOUT_BODY = {
    "head_with_a_length": ("HEAD", message("200 OK", [("Content-Length", "12345")], length=False)),
    "head_with_a_coding": ("HEAD", message("200 OK", [("Transfer-Encoding", "chunked")], length=False)),
    "head_with_nothing": ("HEAD", message("200 OK", [], length=False)),
    "no_content": ("GET", message("204 No Content", [], length=False)),
    "not_modified_with_a_length": (
        "GET",
        message("304 Not Modified", [("Content-Length", "12")], length=False),
    ),
    "an_empty_200": ("GET", message("200 OK", [])),
}


@pytest.mark.parametrize(("method", "raw"), WITHOUT_BODY.values(), ids=WITHOUT_BODY)
def test_answers_without_a_body_end_at_once_and_keep_the_connection(
    method: str, raw: bytes, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    upstream.answer = respond(raw)
    client = connect()
    started = time.monotonic()
    answer = client.request(request(method, "/api/tags", keys.read), method)
    assert (answer.status, answer.body) == (int(raw[9:12]), b"")
    if b"12345" in raw:
        assert answer.header("content-length") == "12345"
    if answer.status == 204:
        assert answer.all("content-length") == answer.all("transfer-encoding") == []
    upstream.answer = respond(OK)
    assert client.request(request("GET", "/api/tags", keys.read)).status == 200
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_interim_answers_do_not_become_the_answer(
    interim: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    first = message(interim, [("Link", "</x>")] if interim[:3] == "103" else [], length=False)
    upstream.answer = respond(first + first + OK)
    client = connect()
    for _ in range(2):
        answer = client.request(request("POST", "/api/show", keys.read, body=b"{}"))
        assert (answer.status, answer.body) == (200, b'{"version":"0.24.0"}')


@over_tls_and_plain
def test_an_answer_that_ends_with_its_connection_ends_cleanly(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    def until_close(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end")
        exchange.close()

    upstream.answer = until_close
    answer = connect(ragged_ends=True).request(request("GET", "/api/tags", keys.read))
    assert (answer.status, answer.body, answer.torn) == (200, b"to the end", None)


def test_an_encoded_answer_stays_encoded(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    body = gzip.compress(b'{"models":[]}')
    upstream.answer = respond(message("200 OK", [("Content-Encoding", "gzip")], body))
    answer = connect().request(request("GET", "/api/tags", keys.read, "Accept-Encoding: gzip"))
    assert (answer.header("content-encoding"), answer.body) == ("gzip", body)
    assert upstream.requests[0].all("accept-encoding") == ["gzip"]


def test_trailers_of_the_answer_are_dropped(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    wire = message("200 OK", CHUNKED, length=False) + b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"
    upstream.answer = respond(wire)
    client = connect()
    for _ in range(2):
        answer = client.request(request("GET", "/api/tags", keys.read))
        assert (answer.body, answer.torn) == (b"x", None)


def test_a_large_answer_is_the_same_bytes(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    body = bytes(range(256)) * 4 * 4096
    upstream.answer = respond(message("200 OK", [], body))
    assert connect().request(request("GET", "/api/tags", keys.read)).body == body
