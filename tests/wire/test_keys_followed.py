"""A running proxy follows its key store: new keys open, revoked ones close, within two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .conftest import StartSite
from .messages import check_refusal, request
from .site import Keys, Site, keys_command, make_key
from .upstream import OK, message

BOUND = 2.0
CHUNKED = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite) -> Site:
    return start_site()


def seconds_until(true: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < 10
        time.sleep(0.05)
    return time.monotonic() - started


def status(site: Site, key: str) -> int:
    client = site.connect()
    answer = client.request(request("GET", "/api/version", key))
    client.close()
    return answer.status


def test_a_key_made_while_the_proxy_runs_opens_it(site: Site, keys: Keys) -> None:
    key = make_key(keys.store, "newcomer")
    assert seconds_until(lambda: status(site, key) == 200) < BOUND
    site.keys.more.append(key)


def test_a_key_that_is_revoked_is_refused_and_its_requests_end(site: Site, keys: Keys) -> None:
    key = make_key(keys.store, "leaver")
    site.keys.more.append(key)
    seconds_until(lambda: status(site, key) == 200)
    site.upstream.play()
    streaming, waiting, neighbour = site.connect(), site.connect(), site.connect()
    streaming.send(request("POST", "/api/chat", key, body=b"{}"))
    stream = site.upstream.next()
    stream.read_body()
    stream.send(message("200 OK", CHUNKED, length=False))
    stream.chunk(b"first\n")
    head = streaming.head("POST")
    assert streaming.piece(head) == b"first\n"
    waiting.send(request("POST", "/api/chat", key, body=b"{}"))
    unanswered = site.upstream.next()
    unanswered.read_body()
    neighbour.send(request("POST", "/api/chat", keys.default, body=b"{}"))
    other = site.upstream.next()
    other.read_body()

    keys_command(keys.store, "revoke", key.split("_")[1])
    started = time.monotonic()
    check_refusal(waiting.response(), 401, "invalid_credentials")
    while streaming.piece(head):
        pass
    assert head.torn
    assert max(stream.left_at(5), unanswered.left_at(5)) - started < BOUND
    assert status(site, key) == 401
    other.send(OK)
    other.finish()
    assert neighbour.response().status == 200
    for client in (streaming, waiting, neighbour):
        client.close()


def test_a_key_that_expires_lets_its_requests_finish(site: Site, keys: Keys) -> None:
    key = make_key(keys.store, "brief", "--expires", "3s")
    site.keys.more.append(key)
    seconds_until(lambda: status(site, key) == 200)
    site.upstream.play("/api/chat")
    client = site.connect()
    client.send(request("POST", "/api/chat", key, body=b"{}"))
    exchange = site.upstream.next()
    exchange.read_body()
    seconds_until(lambda: status(site, key) == 401)
    exchange.send(OK)
    exchange.finish()
    assert client.response().status == 200
    client.close()
