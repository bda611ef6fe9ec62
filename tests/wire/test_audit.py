"""Who changed what, and who was refused, is told in the log: enough to act on, and no secret."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.identity.tokens import AUDIENCE, NAME, claims, jwks, signer

from .client import Client
from .conftest import until
from .messages import request
from .site import Keys, Site, basic, keys_command, make_key, well_formed_key

FOLLOWED = 2.0
"""Seconds in which a running proxy follows the store."""

FLOOD = 5000
TOLD = 5
MINUTE = 60.0


@pytest.fixture(scope="module")
def own_keys(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The same keys in a store that no other test changes."""
    store = tmp_path_factory.mktemp("audit") / "keys.db"
    with closing(sqlite3.connect(keys.store)) as shared, closing(sqlite3.connect(store)) as own:
        shared.backup(own)
    return replace(keys, store=store)


@pytest.fixture(scope="module")
def tls_site(own_keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("issuer") / "jwks.json"
    file.write_bytes(jwks(signer().jwk()))
    issuer = {"issuer": NAME, "audience": AUDIENCE, "jwks_file": str(file)}
    balancers = {"trusted_proxies": ["127.0.0.0/8"]}  # so that each test has addresses of its own
    folder = tmp_path_factory.mktemp("site")
    site = Site(
        folder, own_keys, auth={"jwt": [issuer]}, listen=balancers, log={"level": "error", "access": False}
    )
    yield site
    site.stop()


def audited(site: Site, **members: object) -> list[dict[str, Any]]:
    """The audit lines that have these members."""
    found = [line for line in list(site.log) if line.get("event") == "audit"]
    return [line for line in found if members.items() <= line.items()]


def wait_for(site: Site, **members: object) -> dict[str, Any]:
    until(lambda: audited(site, **members), FOLLOWED, f"no audit line with {members}")
    (line,) = audited(site, **members)
    return line


# Keys, changed by the commands while the proxy runs


def test_what_becomes_of_a_key_is_told_by_its_id_and_name(site: Site) -> None:
    store = site.keys.store
    key = make_key(store, "watched", "--scope", "read")
    site.keys.more.append(key)
    key_id = key.split("_")[1]
    who = {"key_id": key_id, "key_name": "watched"}
    line = wait_for(site, action="key_created", **who)
    assert set(line) == {
        *("time", "event", "level", "logger", "message"),
        *("action", "key_id", "key_name", "changed"),
    }
    assert (line["message"], line["level"]) == ("key created: watched", "info")

    keys_command(store, "set", key_id, "--scope", "inference", "--cloud", "--max-context", "4096")
    line = wait_for(site, action="key_changed", **who)
    assert set(line["changed"]) == {"scopes", "cloud", "limits"}

    site.keys.more.append(keys_command(store, "rotate", key_id, "--overlap", "24h"))
    assert wait_for(site, action="key_rotated", **who)["changed"] == []

    keys_command(store, "revoke", key_id)
    wait_for(site, action="key_revoked", **who)

    actions = Counter(line["action"] for line in audited(site, **who))
    assert set(actions.values()) == {1}, "each is told once"


def test_a_key_of_ssh_is_told_too(site: Site, tmp_path: Path) -> None:
    public = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
    (tmp_path / "id.pub").write_text(public + " user@host\n")
    keys_command(site.keys.store, "add-ssh", "signing", str(tmp_path / "id.pub"))
    line = wait_for(site, action="key_created", key_name="signing")
    assert public.split()[1] not in json.dumps(line)


def test_keys_that_were_there_at_the_start_are_no_news(site: Site) -> None:
    assert not audited(site, action="key_created", key_name="default")


def test_the_use_of_a_key_is_no_change_of_it(site: Site, keys: Keys) -> None:
    client = site.connect()
    assert client.request(request("GET", "/api/version", keys.push)).status == 403
    assert client.request(request("GET", "/api/version", keys.manage)).status == 403
    client.close()
    time.sleep(4.6)  # its last use is noted, and followed
    assert not audited(site, action="key_changed", key_name="manage")


# Refusals


def mistyped(key: str) -> str:
    return key[:-1] + ("A" if key[-1] != "A" else "B")


def wrong_secret(keys: Keys) -> str:
    return well_formed_key(keys.default.split("_")[1], "B" * 43)


SIGNATURE = base64.b64encode(b"a" * 51).decode() + ":" + base64.b64encode(b"b" * 64).decode()
Fields = Callable[[Keys], list[str]]
BAD: dict[str, tuple[Fields, str, str | None, bool]] = {
    "mistyped": (lambda k: [f"X-Api-Key: {mistyped(k.default)}"], "invalid_credentials", "mistyped", False),
    "unknown": (lambda k: [f"Authorization: Bearer {k.unknown}"], "invalid_credentials", "unknown", False),
    "wrong_secret": (
        lambda k: [f"X-Api-Key: {wrong_secret(k)}"],
        *("invalid_credentials", "wrong_secret", True),
    ),
    "revoked": (
        lambda k: [f"Authorization: Basic {basic('u', k.revoked)}"],
        *("invalid_credentials", "unknown", False),  # a proxy follows the keys that are good
    ),
    "expired": (lambda k: [f"X-Api-Key: {k.expired}"], "expired_credentials", "expired", True),
    "no_key": (lambda k: ["X-Api-Key: my-password"], "invalid_credentials", "no_key", False),
    "jwt": (
        lambda k: [f"Authorization: Bearer {signer().token(claims(exp=1)).decode()}"],
        *("invalid_credentials", "jwt", False),
    ),
    "ssh_signature": (
        lambda k: [f"Authorization: {SIGNATURE}"],
        *("invalid_credentials", "ssh_signature", False),
    ),
    "missing": (lambda k: [], "missing_credentials", None, False),
    "two": (
        lambda k: [f"X-Api-Key: {k.read}", f"Authorization: Bearer {k.default}"],
        *("ambiguous_credentials", None, False),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_refusal_is_told_with_its_reason_its_sender_and_more_than_the_sender_was_told(
    case: str, site: Site, keys: Keys, named: str
) -> None:
    fields, code, verdict, known = BAD[case]
    address = f"192.0.2.{list(BAD).index(case) + 1}"
    client = site.connect()
    sent = fields(keys)
    answer = client.request(
        request("GET", "/api/tags?ts=1", None, *sent, f"X-Request-Id: {named}", f"X-Forwarded-For: {address}")
    )
    client.close()
    line = wait_for(site, request_id=named)
    assert (line["action"], line["code"], line["client"]) == ("refused", code, address)
    assert line["verdict"] == verdict
    assert (line["key_id"] is not None) is known
    assert line["message"] == f"refused: {code}" + (f" ({verdict})" if verdict else "")
    if verdict in ("unknown", "revoked", "wrong_secret", "mistyped"):
        assert verdict not in answer.body.decode(), "the sender is not told"
    assert not [field for field in sent if field.split(" ")[-1] in "".join(site.out)]


def test_a_secret_that_was_replaced_is_told_apart(site: Site, named: str) -> None:
    store = site.keys.store
    old = make_key(store, "replaced")
    new = keys_command(store, "rotate", old.split("_")[1], "--overlap", "0s")
    site.keys.more.extend([old, new])
    wait_for(site, action="key_created", key_name="replaced")
    client = site.connect()

    def opens() -> bool:
        return client.request(request("GET", "/api/version", new)).status == 200

    until(opens, FOLLOWED)
    field = "X-Forwarded-For: 198.51.100.9"
    assert client.request(request("GET", "/api/tags", old, f"X-Request-Id: {named}", field)).status == 401
    client.close()
    assert wait_for(site, request_id=named)["verdict"] == "replaced"


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "code"),
    [
        ("read", "POST", "/api/chat", b'{"model":"m"}', "scope_denied"),
        ("inference", "POST", "/api/chat", b'{"model":"m:cloud"}', "cloud_denied"),
        ("inference", "POST", "/v1/messages", b'{"model":"m","model":"m:cloud"}', "unreadable_body"),
        ("every", "GET", "/api//tags", None, "malformed_request"),
    ],
)
def test_what_a_good_key_was_denied_is_told_with_the_key(
    who: str, method: str, path: str, body: bytes | None, code: str, site: Site, keys: Keys, named: str
) -> None:
    client, key = site.connect(), getattr(keys, who)
    fields = [f"X-Request-Id: {named}", "X-Forwarded-For: 198.51.100.7"]
    assert client.request(request(method, path, key, *fields, body=body)).status in (400, 403)
    client.close()
    line = wait_for(site, request_id=named)
    assert (line["code"], line["client"], line["verdict"]) == (code, "198.51.100.7", None)
    assert line["key_id"] == (key.split("_")[1] if code != "malformed_request" else None)


def flood(site: Site, key: str, count: int, address: Callable[[int], str]) -> None:
    """Refusals as fast as they are answered, pipelined."""
    client: Client = site.connect()
    for start in range(0, count, 50):
        numbers = range(start, min(count, start + 50))
        client.send(
            b"".join(
                request("GET", "/api/tags", key, f"X-Forwarded-For: {address(number)}") for number in numbers
            )
        )
        for _ in numbers:
            assert client.response().status == 401
    client.close()


def test_a_flood_of_refusals_fills_no_log_and_is_summed_up(own_keys: Keys, tmp_path: Path) -> None:
    """The sum comes a minute later, or with the end."""
    site = Site(
        tmp_path,
        own_keys,
        listen={"trusted_proxies": ["127.0.0.0/8"]},
        log={"access": False, "level": "error"},
    )
    with ThreadPoolExecutor(2) as pool:
        many = pool.submit(flood, site, own_keys.unknown, FLOOD, lambda _: "192.0.2.1")
        flood(site, own_keys.unknown, 600, lambda number: f"203.0.{number // 200}.{number % 200}")
        many.result()
    site.stop()
    told = audited(site, action="refused")
    assert len(audited(site, action="refused", client="192.0.2.1")) == TOLD
    assert len(told) <= 200, "of all addresses together"
    sums = audited(site, action="refused_more")
    (sum_,) = (line for line in sums if line["client"] == "192.0.2.1")
    assert (sum_["count"], sum_["code"]) == (FLOOD - TOLD, "invalid_credentials")
    assert sum_["message"] == f"refused {FLOOD - TOLD} times more in a minute: invalid_credentials"
    assert len(sums) <= 102
    assert len(told) + sum(line["count"] for line in sums) == FLOOD + 600
    assert len(site.out) < 320


def test_in_text_an_audit_line_says_the_same(own_keys: Keys, tmp_path: Path) -> None:
    site = Site(tmp_path, own_keys, log={"format": "text", "level": "error", "access": False})
    client = site.connect()
    client.request(request("GET", "/api/tags", own_keys.expired, "X-Request-Id: in-text"))
    client.close()
    key = make_key(own_keys.store, "told in text")
    own_keys.more.append(key)
    key_id = key.split("_")[1]
    until(lambda: any(key_id in line for line in site.out), FOLLOWED)
    site.stop()
    text = "".join(site.out)
    assert "refused: expired_credentials (expired)" in text
    assert "client=127.0.0.1 request_id=in-text" in text
    assert f"key created: told in text action=key_created key_id={key_id}" in text
