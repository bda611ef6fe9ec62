"""How a request that went wrong is counted and logged: the client left, or Ollama failed."""

from __future__ import annotations

import pytest

from .conftest import Connect, Moved
from .messages import check_refusal, chunked, request
from .site import ANSWER, PROMPT, Keys, Site
from .upstream import Exchange, message

STREAM = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]
BODY = b'{"model":"llama3.2","prompt":"%s"}' % PROMPT.encode()


@pytest.mark.parametrize("phase", ["upload", "waiting", "streaming"])
def test_a_client_that_left_is_499(
    phase: str, connect: Connect, keys: Keys, site: Site, named: str, moved: Moved
) -> None:
    site.upstream.play()
    client = connect()
    raw = request("POST", "/api/generate", keys.every, f"X-Request-Id: {named}", body=BODY)
    client.send(raw[:-5] if phase == "upload" else raw)
    exchange = site.upstream.next()
    if phase == "upload":
        came = b""
        while len(came) < len(BODY) - 5:
            came += exchange.read_some()
    else:
        exchange.read_body()
    if phase == "streaming":
        exchange.send(message("200 OK", STREAM, length=False))
        exchange.chunk(ANSWER.encode())
        client.piece(client.head("POST"))
    client.close()
    line = site.logged(named)
    assert (line["status"], line["outcome"]) == (499, "client_closed")
    assert line["received_bytes"] == len(BODY) - (5 if phase == "upload" else 0)
    assert line["sent_bytes"] == (len(ANSWER) if phase == "streaming" else 0)
    moved(1, "ollama_proxy_client_disconnects_total", phase=phase)
    moved(1, "ollama_proxy_requests_total", route="/api/generate", code="499")
    moved(0, "ollama_proxy_requests_in_flight", route="/api/generate")


DONE = [
    ("/api/chat", b'{"done":false}\n', b'{"model":"m","done":true,"done_reason":"stop"}\n'),
    ("/v1/chat/completions", b"data: {}\n\n", b"data: [DONE]\n\n"),
    ("/v1/messages", b"data: {}\n\n", b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
]


@pytest.mark.parametrize(("path", "first", "last"), DONE, ids=[path for path, _, _ in DONE])
def test_a_client_that_leaves_after_the_end_marker_had_its_answer(
    path: str, first: bytes, last: bytes, connect: Connect, keys: Keys, site: Site, named: str
) -> None:
    site.upstream.play()
    client = connect()
    client.send(request("POST", path, keys.default, f"X-Request-Id: {named}", body=b"{}"))
    exchange = site.upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", [STREAM[1]], length=False))
    exchange.chunk(first)
    exchange.chunk(last)
    head = client.head("POST")
    assert [client.piece(head), client.piece(head)] == [first, last]
    client.close()
    line = site.logged(named)
    assert (line["status"], line["outcome"]) == (200, "ok")


def close(exchange: Exchange) -> None:
    exchange.read_body()
    exchange.close()


def garbage(exchange: Exchange) -> None:
    exchange.send(b"garbage\r\n\r\n")
    exchange.close()


def truncate(exchange: Exchange) -> None:
    exchange.send(message("200 OK", STREAM, b"3\r\nabc\r\n", length=False))
    exchange.close()


FAILURES = {
    "reset": (close, 502, "upstream_unreachable", "upstream_failed"),
    "malformed": (garbage, 502, "upstream_protocol_error", "upstream_failed"),
    "truncated": (truncate, 200, None, "upstream_failed"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_of_the_upstream_is_counted_by_its_kind(
    kind: str,
    connect: Connect,
    keys: Keys,
    site: Site,
    named: str,
    moved: Moved,
) -> None:
    site.upstream.close_idle()
    script, status, code, outcome = FAILURES[kind]
    site.upstream.answer = script
    raw = request("POST", "/api/chat", keys.default, f"X-Request-Id: {named}", body=BODY)
    assert connect().request(raw).status == status
    line = site.logged(named)
    assert (line["status"], line["outcome"]) == (status, outcome)
    if code:
        assert line["code"] == code
    moved(1, "ollama_proxy_upstream_failures_total", kind=kind)


@pytest.mark.parametrize("moment", ["in_the_middle", "with_the_head"])
def test_a_body_that_breaks_is_answered_counted_and_logged_once(
    moment: str, connect: Connect, keys: Keys, site: Site, named: str, moved: Moved
) -> None:
    """One that is broken already when its head arrives belongs to no request yet."""
    site.upstream.play("/api/chat")
    lines = len(site.log)
    client = connect()
    begun = request("POST", "/api/chat", keys.every, f"X-Request-Id: {named}", "Transfer-Encoding: chunked")
    begun += chunked(BODY)[:-5]
    if moment == "in_the_middle":
        client.send(begun)
        exchange = site.upstream.next()
        exchange.read_some()
        client.send(b"xyz\r\n")
        exchange.left_at(5)
    else:
        client.send(begun + b"xyz\r\n")
    answer = client.response("POST")
    check_refusal(answer, 400, "malformed_request")
    client.end(12)
    line = site.logged(answer.header("x-request-id") or "")
    assert (line["status"], line["code"]) == (400, "malformed_request")
    route, method = "other", "other"
    if moment == "in_the_middle":
        route, method = "/api/chat", "POST"
        assert (line["request_id"], line["key_name"], line["outcome"]) == (named, "every", "aborted")
    assert line["route"] == route
    moved(1, "ollama_proxy_requests_total", route=route, method=method, code="400")
    moved(1, "ollama_proxy_requests_total")
    moved(1, "ollama_proxy_denied_total", code="malformed_request")
    moved(0, "ollama_proxy_requests_in_flight")
    assert [entry for entry in site.log[lines:] if "outcome" in entry] == [line]
