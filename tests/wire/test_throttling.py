"""Bad credentials become slow to try, and nobody else is hurt."""

from __future__ import annotations

import pytest

from .conftest import Connect, StartSite
from .messages import check_refusal, request
from .site import Keys, Site, well_formed_key

ALLOWED = 5


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite) -> Site:
    return start_site(
        listen={"trusted_proxies": ["127.0.0.1"]},
        auth={"failures_per_minute": ALLOWED, "anonymous": ["GET /"], "path_keys": True},
    )


def ask(key: str | None, address: str, target: str = "/api/version") -> bytes:
    return request("GET", target, key, f"X-Forwarded-For: {address}")


def test_after_too_many_failures_an_address_is_told_to_wait(connect: Connect, keys: Keys) -> None:
    client = connect()
    for _ in range(ALLOWED):
        check_refusal(client.request(ask(keys.unknown, "192.0.2.1")), 401, "invalid_credentials")
    answer = client.request(ask(keys.unknown, "192.0.2.1"))
    check_refusal(answer, 429, "too_many_failures")
    assert 1 <= int(answer.header("retry-after") or 0) <= 60
    assert answer.header("ratelimit-policy") == f'"failures";q={ALLOWED};w=60'
    assert (answer.header("ratelimit") or "").startswith('"failures";r=0;t=')


def test_a_good_key_from_the_same_address_is_served_all_the_while(
    connect: Connect, keys: Keys, site: Site
) -> None:
    client = connect()
    for _ in range(ALLOWED + 3):
        client.request(ask(keys.unknown, "192.0.2.2"))
        assert client.request(ask(keys.default, "192.0.2.2")).status == 200
    assert client.request(ask(keys.unknown, "192.0.2.2")).status == 429
    assert client.request(ask(None, "192.0.2.2", "/")).status == 200
    assert client.request(ask(None, "192.0.2.2", f"/~{keys.default}/api/version")).status == 200


def test_other_addresses_are_not_held_back(connect: Connect, keys: Keys) -> None:
    client = connect()
    for _ in range(ALLOWED + 1):
        client.request(ask(keys.unknown, "2001:db8:0:3::1"))
    assert client.request(ask(keys.unknown, "2001:db8:0:3:aaaa::9")).status == 429
    assert client.request(ask(keys.unknown, "2001:db8:0:4::1")).status == 401


def test_what_is_missing_or_ambiguous_or_forbidden_is_no_failure(connect: Connect, keys: Keys) -> None:
    client = connect()
    for _ in range(ALLOWED + 1):
        assert client.request(ask(None, "192.0.2.3")).status == 401
        two = request("GET", "/api/version", keys.read, f"Authorization: Bearer {keys.default}")
        assert (
            client.request(two.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.3\r\n\r\n")).status == 400
        )
        assert client.request(ask(keys.read, "192.0.2.3", "/nowhere")).status == 404
    assert client.request(ask(keys.unknown, "192.0.2.3")).status == 401


def test_a_flood_leaves_memory_flat(connect: Connect, site: Site) -> None:
    client = connect()

    def flood(network: int) -> None:
        for number in range(3000):
            key = well_formed_key(f"{number:010d}", "A" * 43)
            address = f"10.{network}.{number // 250}.{number % 250}"
            assert client.request(ask(key, address)).status == 401

    for network in range(3):  # the table of addresses is full after these
        flood(network)
    before = site.rss()
    for network in range(3, 6):
        flood(network)
    assert site.rss() - before < 2 * 1024 * 1024
