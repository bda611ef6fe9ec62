"""A running proxy follows its key store: new keys open, revoked ones close, within two seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

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


def test_what_is_changed_of_a_key_holds_within_two_seconds(site: Site, keys: Keys) -> None:
    key = make_key(keys.store, "changing")
    site.keys.more.append(key)
    seconds_until(lambda: status(site, key) == 200)
    keys_command(keys.store, "set", key.split("_")[1], "--scope", "inference")
    assert seconds_until(lambda: status(site, key) == 403) < BOUND
    keys_command(keys.store, "set", key.split("_")[1], "--scope", "read", "--expires", "2s")
    assert seconds_until(lambda: status(site, key) == 200) < BOUND
    assert seconds_until(lambda: status(site, key) == 401) < 4


def test_after_a_rotation_both_secrets_hold_until_the_overlap_ends(site: Site, keys: Keys) -> None:
    old = make_key(keys.store, "rotating")
    site.keys.more.append(old)
    seconds_until(lambda: status(site, old) == 200)
    new = keys_command(keys.store, "rotate", old.split("_")[1], "--overlap", "3s")
    site.keys.more.append(new)
    assert new.split("_")[1] == old.split("_")[1]
    assert seconds_until(lambda: status(site, new) == 200) < BOUND
    assert status(site, old) == 200
    assert seconds_until(lambda: status(site, old) == 401) < 5
    assert status(site, new) == 200


def last_used(keys: Keys, key: str) -> str | None:
    shown: dict[str, str | None] = json.loads(keys_command(keys.store, "show", key.split("_")[1], "--json"))
    return shown["last_used"]


def test_when_a_key_was_used_is_noted_behind_the_request(site: Site, keys: Keys) -> None:
    key = make_key(keys.store, "noted")
    site.keys.more.append(key)
    assert last_used(keys, key) is None
    seconds_until(lambda: status(site, key) == 200)
    used = datetime.now(UTC)
    deadline = time.monotonic() + 10
    while (noted := last_used(keys, key)) is None:
        assert time.monotonic() < deadline
    assert abs((datetime.fromisoformat(noted) - used).total_seconds()) < 3


def test_what_was_not_yet_noted_is_noted_when_the_proxy_ends(start_site: StartSite, keys: Keys) -> None:
    key = make_key(keys.store, "noted at the end")
    site = start_site()
    site.keys.more.append(key)
    assert status(site, key) == 200
    site.terminate()
    assert site.exit_code() == 0
    assert last_used(keys, key) is not None
