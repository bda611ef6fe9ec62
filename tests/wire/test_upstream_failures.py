"""Ollama fails: 502 before the first byte, a visibly torn body after it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from .conftest import Connect, StartSite, over_tls_and_plain
from .messages import check_refusal, dialect_of, request
from .site import Keys
from .upstream import OK, Exchange, Upstream, message

NDJSON = ("Content-Type", "application/x-ndjson")
SSE = ("Content-Type", "text/event-stream")
JSON = ("Content-Type", "application/json")
CHUNKED = ("Transfer-Encoding", "chunked")

PATHS = ["/api/chat", "/api/embed", "/v1/chat/completions", "/v1/messages"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ending", ["closes", "resets"])
def test_an_upstream_that_ends_before_its_answer_is_502(
    ending: str, path: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    def fail(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.close() if ending == "closes" else exchange.reset()

    upstream.close_idle()
    upstream.answer = fail
    client = connect()
    answer = client.request(request("POST", path, keys.default, body=b"{}"))
    check_refusal(answer, 502, "upstream_unreachable", dialect_of(path))
    upstream.answer = lambda exchange: exchange.send(OK)
    assert client.request(request("GET", "/api/tags", keys.read)).status == 200


MALFORMED = {
    "garbage": b"\x15\x03\x03\x00\x02\x02\x46 not http\r\n\r\n",
    "another_protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "http_2_0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "no_status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a_status_of_two_digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a_status_of_four_digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}",
    "switching_protocols": message("101 Switching Protocols", [("Upgrade", "x"), ("Connection", "Upgrade")]),
    "length_and_coding": message("200 OK", [CHUNKED, ("Content-Length", "2")], b"0\r\n\r\n", length=False),
    "coding_and_length": message("200 OK", [("Content-Length", "2"), CHUNKED], b"0\r\n\r\n", length=False),
    "two_lengths": message("200 OK", [("Content-Length", "2")] * 2, b"{}", length=False),
    "two_lengths_that_differ": message("200 OK", [("Content-Length", "5")], b"{}"),
    "a_negative_length": message("200 OK", [("Content-Length", "-2")], b"{}", length=False),
    "a_list_of_lengths": message("200 OK", [("Content-Length", "2, 2")], b"{}", length=False),
    "a_length_beyond_64_bits": message("200 OK", [("Content-Length", "9" * 25)], b"{}", length=False),
    "another_coding": message("200 OK", [("Transfer-Encoding", "gzip, chunked")], b"0\r\n\r\n", length=False),
    "chunked_twice": message(
        "200 OK", [("Transfer-Encoding", "chunked, chunked")], b"0\r\n\r\n", length=False
    ),
    "a_folded_line": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\n{}",
    "a_blank_before_the_colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
    "a_nul_in_a_value": b"HTTP/1.1 200 OK\r\nX-A: 1\0\r\nContent-Length: 2\r\n\r\n{}",
    "a_bare_cr_in_a_value": b"HTTP/1.1 200 OK\r\nX-A: 1\rSet-Cookie: a\r\nContent-Length: 2\r\n\r\n{}",
    "a_bare_lf": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "a_line_without_a_colon": b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\n{}",
    "half_a_head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "an_endless_head": b"HTTP/1.1 200 OK\r\n" + b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 30_000,
    "an_endless_field": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1_200_000,
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_an_answer_that_is_not_http_is_502(
    raw: bytes, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(raw)
        exchange.close()

    upstream.answer = answer
    client = connect()
    check_refusal(client.request(request("GET", "/api/tags", keys.read)), 502, "upstream_protocol_error")
    assert len(upstream.requests) == 1, "a request whose answer had begun was sent again"
    upstream.answer = lambda exchange: exchange.send(OK)
    assert client.request(request("GET", "/api/tags", keys.read)).status == 200


def test_nothing_of_a_101_reaches_the_client(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    upstream.answer = lambda exchange: exchange.send(MALFORMED["switching_protocols"] + b"hello")
    client = connect()
    client.send(request("GET", "/api/tags", keys.read))
    assert client.head().status == 502, "something came before the refusal"


BREAKS = {
    "closes_in_a_chunk": b"20\r\n{}\n",
    "closes_after_a_chunk": b"3\r\n{}\n\r\n",
    "a_bad_chunk_size": b"3\r\n{}\n\r\nxyz\r\n",
    "a_chunk_too_long": b"3\r\n{}\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "closes_before_the_last_line": b"3\r\n{}\n\r\n0\r\n",
}


@over_tls_and_plain
@pytest.mark.parametrize("ending", ["closes", "resets"])
@pytest.mark.parametrize("wire", BREAKS.values(), ids=BREAKS)
def test_a_broken_ndjson_stream_ends_with_an_error_line_and_torn(
    wire: bytes, ending: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    def break_off(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", [NDJSON, CHUNKED], length=False) + wire)
        time.sleep(0.1)
        exchange.close() if ending == "closes" else exchange.reset()

    upstream.answer = break_off
    client = connect()
    answer = client.request(request("POST", "/api/chat", keys.default, body=b"{}"))
    assert answer.status == 200
    assert answer.torn, "a truncated stream ended as if it were whole"
    first, *_, last = answer.body.decode().split("\n")[:-1]
    assert first == "{}"
    told = json.loads(last)
    assert set(told) == {"error", "code"}
    assert told["code"].startswith("upstream_")
    assert answer.body.endswith(b"\n")


@over_tls_and_plain
@pytest.mark.parametrize(
    ("path", "kind", "wire"),
    [
        ("/v1/chat/completions", SSE, b"8\r\ndata: x\n\r\n"),
        ("/v1/messages", SSE, b"8\r\ndata: x\n\r\n"),
        ("/api/embed", JSON, b'2\r\n{"\r\n'),
    ],
)
def test_any_other_broken_stream_ends_torn_with_nothing_added(
    path: str, kind: tuple[str, str], wire: bytes, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    def break_off(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", [kind, CHUNKED], length=False) + wire)
        exchange.close()

    upstream.answer = break_off
    answer = connect().request(request("POST", path, keys.default, body=b"{}"))
    assert answer.status == 200
    assert answer.torn
    assert answer.body == wire.split(b"\r\n")[1]


@over_tls_and_plain
def test_a_body_shorter_than_its_length_ends_torn(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    def truncate(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(message("200 OK", [JSON, ("Content-Length", "10")], b"12345", length=False))
        exchange.close()

    upstream.answer = truncate
    answer = connect().request(request("GET", "/api/tags", keys.read))
    assert (answer.status, answer.body) == (200, b"12345")
    assert answer.torn


@over_tls_and_plain
def test_a_body_without_framing_that_is_reset_ends_torn(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    """Its end is the end of the connection, so only a reset tells a torn one from a whole one."""

    def reset(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf")
        time.sleep(0.1)
        exchange.reset()

    upstream.answer = reset
    client = connect(ragged_ends=True)
    answer = client.request(request("GET", "/api/tags", keys.read))
    assert (answer.status, answer.body) == (200, b"half")
    assert answer.torn


def test_a_refused_connection_is_502_and_the_proxy_recovers(start_site: StartSite, keys: Keys) -> None:
    site = start_site()
    listener_port = site.upstream.port
    site.upstream.stop()
    time.sleep(0.1)
    client = site.connect()
    for path in ("/api/tags", "/v1/models"):
        answer = client.request(request("GET", path, keys.read))
        check_refusal(answer, 502, "upstream_unreachable", dialect_of(path))
    assert str(listener_port).encode() not in answer.body, "an error told where the upstream is"
    assert site.wait_for_metric("ollama_proxy_upstream_failures_total", 2, kind="connect") == 2
    with socket.create_server(("127.0.0.1", listener_port)) as listener:
        client.send(request("GET", "/api/tags", keys.read))
        connection, _ = listener.accept()
        assert connection.recv(65536).startswith(b"GET ")
        connection.sendall(OK)
        assert client.response().status == 200
        connection.close()
    client.close()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that takes no more connections and refuses none: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


def test_a_connection_that_takes_too_long_is_502(start_site: StartSite, keys: Keys, deaf_port: int) -> None:
    site = start_site(
        upstream={"url": f"http://127.0.0.1:{deaf_port}", "connect_timeout": "300ms"}, wait_for="/healthz"
    )
    client = site.connect()
    started = time.monotonic()
    answer = client.request(request("GET", "/api/tags", keys.read))
    check_refusal(answer, 502, "upstream_unreachable")
    assert 0.25 < time.monotonic() - started < 2
    client.send(request("GET", "/api/tags", keys.read, "X-Request-Id: left-while-connecting"))
    time.sleep(0.05)
    client.reset()
    line = site.logged("left-while-connecting")
    assert (line["status"], line["outcome"]) == (499, "client_closed")
