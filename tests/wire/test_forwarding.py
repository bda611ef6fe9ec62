"""What goes through and what stays behind: heads, bodies and answers, byte for byte."""

from __future__ import annotations

import time

import pytest

from .conftest import Connect
from .messages import chunked, request
from .site import ANSWER, PROMPT, Keys
from .upstream import Upstream, message, respond


def test_headers_go_on_in_order_with_their_duplicates(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    sent = [
        "User-Agent: ollama/0.24",
        "X-One: 1",
        "Accept: application/json",
        "X-Two: a",
        "X-One: 2",
        "x-mixed-CASE: Value, With  Blanks",
        "X-Empty:",
        "X-Latin: caf\xe9",
        "Accept-Encoding: gzip",
        "Referer: https://example.org/",
        'If-None-Match: "x"',
        "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "anthropic-version: 2023-06-01",
        "X-One: 3",
    ]
    assert connect().request(request("GET", "/api/tags", keys.read, *sent)).status == 200
    passed = [(name.lower(), value) for name, value in upstream.requests[0].headers]
    expected = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in sent)]
    assert [pair for pair in passed if pair in expected] == expected


STRIPPED = [
    "Connection: keep-alive, X-Named, close-not",
    "X-Named: secret-hop",
    "Close-Not: secret-hop",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic c2VjcmV0LWhvcA==",
    "Proxy-Anything: secret-hop",
    "TE: trailers",
    "Trailer: X-Sum",
    "Cookie: session=secret-hop",
    "Origin: https://evil.example",
    "Forwarded: for=192.0.2.1",
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Port: 1",
    "X-Real-IP: 192.0.2.1",
]


def test_what_concerns_only_the_proxy_is_not_passed_on(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    assert connect().request(request("GET", "/api/tags", keys.read, *STRIPPED)).status == 200
    names = {name.lower() for name, _ in upstream.requests[0].headers}
    stripped = {line.partition(":")[0].lower() for line in STRIPPED}
    assert names & stripped <= {"connection", "x-forwarded-for", "x-forwarded-proto", "forwarded"}
    heard = upstream.reached()
    for trace in (b"secret-hop", b"evil.example", b"192.0.2.1", b"c2VjcmV0LWhvcA", b"X-Sum"):
        assert trace not in heard


@pytest.mark.parametrize("framing", ["Content-Length: 13", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    "named", ["content-length", "Transfer-Encoding", "Host", "X-Api-Key", "Content-Type"]
)
def test_connection_cannot_be_used_to_take_away_framing(
    named: str, framing: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    body = b'{"model":"m"}'
    raw = request("POST", "/api/generate", keys.every, f"Connection: {named}", framing)
    answer = connect().request(raw + (body if framing.startswith("C") else chunked(body)))
    assert answer.status == 200
    assert upstream.requests[0].body == body
    assert upstream.requests[0].all("host") == [upstream.authority]


@pytest.mark.parametrize(
    "host", ["localhost", "evil.example", "ollama.example:8443", "[::1]:8443", "192.0.2.1"]
)
def test_host_is_the_upstreams_own_authority(
    host: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    assert connect().request(request("GET", "/api/tags", keys.read, host=host)).status == 200
    assert upstream.requests[0].all("host") == [upstream.authority]


BODIES = {
    "empty": b"",
    "one_byte": b"{",
    "json": b'{"model":"llama3.2","prompt":"%s"}' % PROMPT.encode(),
    "every_byte_value": bytes(range(256)) * 3,
    "like_a_request": b"GET /api/tags HTTP/1.1\r\nHost: x\r\n\r\n",
    "like_a_last_chunk": b"0\r\n\r\n",
    "100_kb": bytes(range(256)) * 400,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", ["/api/generate", "/api/blobs/sha256:" + "0" * 64])
def test_a_body_with_a_length_arrives_as_it_was_sent(
    path: str, body: bytes, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    assert connect().request(request("POST", path, keys.every, body=body)).status == 200
    exchange = upstream.requests[0]
    assert exchange.body == body
    assert exchange.all("content-length") == [str(len(body))]
    assert exchange.all("transfer-encoding") == []


SPLITS = {
    "one_chunk": [b'{"model":"m","prompt":"hello"}'],
    "many_chunks": [b'{"model"', b':"m",', b'"prompt"', b':"hello"}'],
    "byte_by_byte": [b"%c" % byte for byte in b'{"model":"m"}'],
    "a_large_chunk": [b"x" * 100_000],
    "a_hundred_thousand_chunks": [b"x"] * 100_000,
}


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "CHUNKED"])
@pytest.mark.parametrize("chunks", SPLITS.values(), ids=SPLITS)
def test_a_chunked_body_arrives_whole(
    chunks: list[bytes], coding: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    raw = request("POST", "/api/generate", keys.every, f"Transfer-Encoding: {coding}")
    raw += b"".join(b"%X;ext=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"000\r\n\r\n"
    assert connect().request(raw).status == 200
    assert upstream.requests[0].body == b"".join(chunks)
    codings = [value.lower() for value in upstream.requests[0].all("transfer-encoding")]
    framing = codings, upstream.requests[0].all("content-length")
    assert framing in ((["chunked"], []), ([], [str(len(b"".join(chunks)))]))
    assert b"ext=1" not in upstream.reached()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_request_byte_by_byte_is_the_same_request(
    framing: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    body = b'{"model":"m","prompt":"x"}'
    if framing == "length":
        raw = request("POST", "/api/chat", keys.default, "X-A: 1", body=body)
    else:
        raw = request("POST", "/api/chat", keys.default, "Transfer-Encoding: chunked")
        raw += b"7\r\n" + body[:7] + b"\r\n%x\r\n" % (len(body) - 7) + body[7:] + b"\r\n0\r\n\r\n"
    client = connect()
    client.send_in_pieces(raw)
    assert client.response().status == 200
    assert upstream.requests[0].body == body


@pytest.mark.parametrize("cut", range(0, 220, 7))
def test_a_request_cut_in_two_anywhere_is_the_same_request(
    cut: int, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    raw = request("POST", "/api/chat", keys.default, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"
    client = connect()
    client.send(raw[:cut])
    time.sleep(0.005)
    client.send(raw[cut:])
    assert client.response().status == 200
    assert upstream.requests[0].body == b"{}"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_on_get_or_delete_goes_on(
    method: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    path = "/api/tags" if method == "GET" else "/api/delete"
    assert connect().request(request(method, path, keys.every, body=b'{"model":"m"}')).status == 200
    assert upstream.requests[0].body == b'{"model":"m"}'


def test_only_http_1_1_is_offered_in_alpn(connect: Connect) -> None:
    assert connect().sock.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]


def test_the_answer_of_the_upstream_is_never_kept(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    """Two clients that ask the same get what the upstream says to each."""
    bodies = iter([b"first", b"second"])
    upstream.answer = lambda exchange: respond(message("200 OK", [], next(bodies) + ANSWER.encode()))(
        exchange
    )
    for expected in (b"first", b"second"):
        assert connect().request(request("GET", "/api/tags", keys.read)).body.startswith(expected)
