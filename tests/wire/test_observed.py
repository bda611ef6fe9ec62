"""What operators see: the access log and the metrics, equal to what was on the wire."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest

from .client import Client
from .conftest import Connect, Moved, StartSite
from .messages import check_refusal, request
from .site import ANSWER, PROMPT, QUERY, Keys, Site
from .upstream import OK, Exchange, Upstream, message, respond

MEMBERS = {
    *(
        "time",
        "request_id",
        "client",
        "method",
        "route",
        "status",
        "code",
        "key_id",
        "key_name",
        "auth",
        "model",
    ),
    *(
        "received_bytes",
        "sent_bytes",
        "duration_ms",
        "queue_ms",
        "first_byte_ms",
        "input_tokens",
        "output_tokens",
    ),
    "outcome",
}
STREAM = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]
BODY = b'{"model":"llama3.2","prompt":"%s"}' % PROMPT.encode()


def test_a_served_request_has_a_line_with_every_member(
    connect: Connect, keys: Keys, site: Site, named: str
) -> None:
    answered = b'{"response":"%s","done":true}' % ANSWER.encode()
    site.upstream.answer = respond(message("200 OK", [("Content-Type", "application/json")], answered))
    before = time.time()
    raw = request("POST", f"/api/generate?{QUERY}=1", keys.default, f"X-Request-Id: {named}", body=BODY)
    assert connect().request(raw).status == 200
    line = site.logged(named)
    assert set(line) == MEMBERS
    expected = {
        "client": "127.0.0.1",
        "method": "POST",
        "route": "/api/generate",
        "status": 200,
        "key_id": keys.default.split("_")[1],
        "key_name": "default",
        "received_bytes": len(BODY),
        "sent_bytes": len(answered),
        "outcome": "ok",
    }
    assert {name: line[name] for name in expected} == expected
    assert not line["code"]
    assert before - 1 < datetime.fromisoformat(line["time"]).timestamp() < time.time() + 1
    assert 0 <= line["first_byte_ms"] <= line["duration_ms"] < 10_000


def test_the_time_to_the_first_byte_and_the_whole_time_are_told_apart(
    connect: Connect, keys: Keys, site: Site, named: str
) -> None:
    def slowly(exchange: Exchange) -> None:
        exchange.read_body()
        time.sleep(0.2)
        exchange.send(message("200 OK", STREAM, length=False))
        exchange.chunk(b"a")
        time.sleep(0.3)
        exchange.send(b"0\r\n\r\n")

    site.upstream.answer = slowly
    connect().request(request("POST", "/api/chat", keys.default, f"X-Request-Id: {named}", body=b"{}"))
    line = site.logged(named)
    assert 190 < line["first_byte_ms"] < 450
    assert 490 < line["duration_ms"] < 900


DENIED = {
    "missing": (None, "GET", "/api/tags", 401, "missing_credentials", "/api/tags"),
    "unknown": ("unknown", "GET", "/api/tags", 401, "invalid_credentials", "/api/tags"),
    "expired": ("expired", "GET", "/api/tags", 401, "expired_credentials", "/api/tags"),
    "scope": ("read", "POST", "/api/chat", 403, "scope_denied", "/api/chat"),
    "template": ("inference", "GET", "/v1/models/x", 403, "scope_denied", "/v1/models/{model}"),
    "path": ("every", "GET", "/api//tags", 400, "malformed_request", "other"),
    "unknown_path": ("every", "GET", "/nothing-here", 404, "unknown_route", "other"),
    "method": ("every", "PUT", "/api/tags", 405, "method_not_allowed", "other"),
}


@pytest.mark.parametrize(("who", "method", "path", "status", "code", "route"), DENIED.values(), ids=DENIED)
def test_a_refusal_is_counted_and_logged(
    who: str | None,
    method: str,
    path: str,
    status: int,
    code: str,
    route: str,
    connect: Connect,
    keys: Keys,
    site: Site,
    named: str,
    moved: Moved,
) -> None:
    key = getattr(keys, who) if who else None
    answer = connect().request(request(method, path, key, f"X-Request-Id: {named}", body=b""))
    assert answer.status == status
    line = site.logged(named)
    assert set(line) == MEMBERS
    assert (line["status"], line["code"], line["outcome"]) == (status, code, "denied")
    assert line["route"] == route
    assert line["sent_bytes"] == len(answer.body)
    label = method if method != "PUT" else "other"  # a method that no route has is not a label
    moved(1, "ollama_proxy_requests_total", route=route, method=label, code=str(status))
    moved(1 if status in (400, 401, 403) else 0, "ollama_proxy_denied_total", code=code)


def test_a_request_that_cannot_be_parsed_is_counted_and_logged(
    connect: Connect, site: Site, moved: Moved
) -> None:
    answer = connect().request(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    check_refusal(answer, 400, "malformed_request")
    line = site.logged(answer.header("x-request-id") or "")
    assert set(line) == MEMBERS
    assert (line["status"], line["code"], line["outcome"], line["route"]) == (
        *(400, "malformed_request"),
        *("denied", "other"),
    )
    moved(1, "ollama_proxy_denied_total", code="malformed_request")


def test_bytes_are_counted_as_they_were_on_the_wire(
    connect: Connect, keys: Keys, upstream: Upstream, moved: Moved
) -> None:
    upstream.answer = respond(message("200 OK", STREAM, b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", length=False))
    client = connect()
    for _ in range(3):
        assert client.request(request("POST", "/api/chat", keys.default, body=BODY)).body == b"abcdefg"
    moved(3 * len(BODY), "ollama_proxy_received_bytes_total", route="/api/chat")
    moved(3 * 7, "ollama_proxy_sent_bytes_total", route="/api/chat")
    moved(3, "ollama_proxy_requests_total", route="/api/chat", method="POST", code="200")
    moved(3, "ollama_proxy_request_duration_seconds_count", route="/api/chat")
    moved(3, "ollama_proxy_added_latency_seconds_count")
    moved(0, "ollama_proxy_denied_total")


def test_what_is_in_flight_is_shown(connect: Connect, keys: Keys, upstream: Upstream, moved: Moved) -> None:
    upstream.play()
    clients = [connect() for _ in range(3)]
    for client in clients:
        client.send(request("POST", "/api/embed", keys.default, body=b"{}"))
    exchanges = [upstream.next() for _ in clients]
    moved(3, "ollama_proxy_requests_in_flight", route="/api/embed")
    for exchange in exchanges:
        exchange.send(OK)
        exchange.finish()
    moved(0, "ollama_proxy_requests_in_flight", route="/api/embed")


@pytest.mark.parametrize(
    ("trusted", "forwarded", "told"),
    [
        ([], "192.0.2.7", "127.0.0.1"),
        (["127.0.0.0/8"], "192.0.2.7", "192.0.2.7"),
        (["127.0.0.0/8"], "198.51.100.1, 192.0.2.7", "192.0.2.7"),
        (["10.0.0.0/8"], "192.0.2.7", "127.0.0.1"),
    ],
)
def test_the_clients_address_comes_from_trusted_balancers_only(
    trusted: list[str], forwarded: str, told: str, start_site: StartSite, keys: Keys, named: str
) -> None:
    site = start_site(tls={"mode": "off"}, listen={"trusted_proxies": trusted})
    client = site.connect()
    fields = [f"X-Forwarded-For: {forwarded}", f"X-Request-Id: {named}"]
    assert client.request(request("GET", "/api/tags", keys.read, *fields)).status == 200
    assert site.logged(named)["client"] == told
    client.close()


def test_every_line_of_the_log_is_json(site: Site, connect: Connect, keys: Keys) -> None:
    connect().request(request("GET", "/api/tags", keys.read))
    for line in site.out:
        assert isinstance(json.loads(line), dict)


def test_labels_never_come_from_clients(site: Site, connect: Connect, keys: Keys) -> None:
    client: Client = connect()
    client.request(request("GET", "/made-up-path", keys.every))
    client.request(request("PROPFIND", "/api/tags", keys.every))
    client.request(request("GET", "/v1/models/made-up-model", keys.every))
    text = site.ops("/metrics")[1].decode()
    assert "made-up" not in text


def test_the_public_listener_shows_nothing_of_operations(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    for path in ("/metrics", "/healthz", "/readyz", "/admin"):
        check_refusal(connect().request(request("GET", path, keys.every)), 404, "unknown_route")
    assert upstream.reached() == b""
