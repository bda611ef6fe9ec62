"""JWTs over the wire: whose are accepted, what they grant, and how every other one is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.identity import test_jwt_attacks as attacks
from tests.identity.issuer_server import KEYS, IssuerServer, issuer_server
from tests.identity.tokens import AUDIENCE, NAME, NOW, claims, jwks, signer

from .client import Client, Response
from .conftest import Connect, StartSite, until
from .messages import check_refusal, request
from .site import Keys, Site

OURS = signer()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuerServer]:
    with issuer_server(tmp_path_factory.mktemp("issuer")) as server:
        server.publish(OURS)
        server.describe()
        yield server


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, start_site: StartSite) -> Site:
    """Knows the issuer of the table of attacks, whose key is in a file."""
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    file.write_bytes(jwks(OURS.jwk()))
    issuer = {"issuer": NAME, "audience": AUDIENCE, "jwks_file": str(file), "leeway": "0s"}
    return start_site(auth={"failures_per_minute": 0, "jwt": [issuer]}, clock=NOW)


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite, server: IssuerServer) -> Site:
    issuer = {
        "issuer": server.url,
        "audience": AUDIENCE,
        "discovery": True,
        "ca_file": str(server.ca_file),
        "models_claim": "models",
        "cloud_claim": "cloud",
        "limits_claim": "",
        "name_claim": "preferred_username",
    }
    site = start_site(auth={"failures_per_minute": 0, "jwt": [issuer]})
    until(lambda: site.metric("ollama_proxy_jwks_age_seconds", {"issuer": server.url}) < 60, 10)
    return site


def token(server: IssuerServer, **changes: object) -> str:
    return OURS.token(told(server, **changes)).decode()


def told(server: IssuerServer, **changes: object) -> dict[str, object]:
    now = int(time.time())
    times = {"exp": now + 300, "iat": now, "nbf": now}
    named = {"iss": server.url, "preferred_username": "alice", "models": ["good"]}
    return claims(**(times | named | changes))


def ask(client: Client, token: str, method: str = "GET", path: str = "/api/version", *more: str) -> Response:
    body = b'{"model":"good"}' if method == "POST" else None
    return client.request(request(method, path, None, f"Authorization: Bearer {token}", *more, body=body))


def test_a_token_of_the_issuer_lets_its_holder_in_with_what_it_says(
    connect: Connect, server: IssuerServer, site: Site, named: str
) -> None:
    client = connect()
    good = token(server)
    assert ask(client, good, "GET", "/api/version", f"X-Request-Id: {named}").status == 200
    line = site.logged(named)
    assert (line["auth"], line["key_id"], line["key_name"]) == ("jwt", None, "alice")
    assert ask(client, good, "POST", "/api/chat").status == 200
    check_refusal(ask(client, good, "POST", "/api/copy"), 403, "scope_denied")
    check_refusal(ask(client, token(server, models=["other"]), "POST", "/api/chat"), 403, "model_denied")
    check_refusal(ask(client, token(server, models=...), "POST", "/api/chat"), 403, "model_denied")
    check_refusal(ask(client, token(server, scope=...)), 403, "scope_denied")
    check_refusal(ask(client, token(server, scope="admin"), "POST", "/api/chat"), 403, "scope_denied")
    for secret in good.split("."):
        assert secret.encode() not in site.upstream.reached()
        assert secret not in "".join(site.out)


def test_a_token_counts_as_a_bearer_alone(connect: Connect, server: IssuerServer) -> None:
    client = connect()
    good = token(server)
    check_refusal(client.request(request("GET", "/api/version", good)), 401, "invalid_credentials")
    both = request("GET", "/api/version", good, f"Authorization: Bearer {good}")
    assert client.request(both).status == 200, "one credential, in two places"
    other = request("GET", "/api/version", token(server, jti="2"), f"Authorization: Bearer {good}")
    check_refusal(client.request(other), 400, "ambiguous_credentials")


def test_keys_go_on_working_beside_tokens(connect: Connect, keys: Keys) -> None:
    assert ask(connect(), keys.default).status == 200


def test_a_token_holds_until_its_end_and_not_longer(
    connect: Connect, start_site: StartSite, server: IssuerServer
) -> None:
    issuer = {"issuer": server.url, "audience": AUDIENCE, "discovery": True, "leeway": "0s"}
    site = start_site(auth={"failures_per_minute": 0, "jwt": [issuer | {"ca_file": str(server.ca_file)}]})
    client = site.connect()
    short = token(server, exp=int(time.time()) + 2)
    assert ask(client, short).status == ask(client, short).status == 200
    time.sleep(2.1)
    check_refusal(ask(client, short), 401, "invalid_credentials")
    client.close()


# Attacks

ATTACKS = attacks.SIGNED | attacks.FORGED
SENDABLE = {
    name: text
    for name, text in ATTACKS.items()
    if text and all(byte > 0x20 and byte != 0x7F for byte in text) and len(text) < 30_000
}


def test_nearly_the_whole_table_of_attacks_can_be_sent() -> None:
    assert len(SENDABLE) > 150


def bearer(text: bytes) -> bytes:
    return request("GET", "/api/version", None, b"Authorization: Bearer " + text)


def test_every_attack_is_refused_and_all_look_alike(attacked: Site, keys: Keys) -> None:
    client = attacked.connect()
    assert client.request(bearer(attacks.GOOD)).status == 200
    plain = client.request(bearer(keys.unknown.encode()))
    for name, text in SENDABLE.items():
        answer = client.request(bearer(text))
        assert (answer.status, answer.body) == (401, plain.body), name
        assert answer.header("www-authenticate") == plain.header("www-authenticate"), name
    client.close()
    assert len(attacked.upstream.requests) == 1


def test_no_attack_takes_much_longer_than_a_wrong_key(attacked: Site, keys: Keys) -> None:
    """Twice as long at most; the quickest of several tries, as the machine has other things to do."""
    client = attacked.connect()

    def milliseconds(text: bytes) -> float:
        raw = bearer(text)
        times = []
        for _ in range(9):
            started = time.perf_counter()
            assert client.request(raw).status == 401
            times.append(time.perf_counter() - started)
        return min(times) * 1000

    slow = list(SENDABLE)
    for pause in (0, 0, 0.5, 1, 2):  # the machine's own pauses pass, and what is slow stays slow
        time.sleep(pause)
        plain = milliseconds(keys.unknown.encode())
        slow = [name for name in slow if milliseconds(SENDABLE[name]) > 2 * plain]
    client.close()
    assert not slow


# The issuer


def test_a_flood_of_unknown_keys_asks_the_issuer_once(
    connect: Connect, server: IssuerServer, site: Site
) -> None:
    before = len([path for path in server.requests if path == KEYS])
    client = connect()
    for number in range(200):
        forged = OURS.token(told(server), kid=f"unknown-{number}").decode()
        check_refusal(ask(client, forged), 401, "invalid_credentials")
    assert len([path for path in server.requests if path == KEYS]) - before <= 1
    assert ask(client, token(server)).status == 200


def test_a_new_key_is_found_by_its_first_token_and_an_old_one_stops_counting(
    start_site: StartSite, server: IssuerServer
) -> None:
    new = signer("RS256", "key-2", 2)
    issuer = {"issuer": server.url, "audience": AUDIENCE, "jwks_url": server.url + KEYS}
    site = start_site(auth={"failures_per_minute": 0, "jwt": [issuer | {"ca_file": str(server.ca_file)}]})
    client = site.connect()
    old = token(server)
    assert ask(client, old).status == 200
    server.publish(new)
    try:
        fresh = new.token(told(server)).decode()
        assert ask(client, fresh).status == 200
        check_refusal(ask(client, old), 401, "invalid_credentials")
    finally:
        server.publish(OURS)
        client.close()


def test_while_the_issuer_is_down_its_old_keys_hold_and_the_metric_grows(
    start_site: StartSite, server: IssuerServer
) -> None:
    issuer = {"issuer": server.url, "audience": AUDIENCE, "discovery": True}
    site = start_site(auth={"failures_per_minute": 0, "jwt": [issuer | {"ca_file": str(server.ca_file)}]})
    client = site.connect()
    assert ask(client, token(server)).status == 200
    server.stop()
    try:
        forged = OURS.token(told(server), kid="unknown").decode()
        check_refusal(ask(client, forged), 401, "invalid_credentials")
        assert site.metric("ollama_proxy_jwks_failures_total", {"issuer": server.url}) == 1
        age = site.metric("ollama_proxy_jwks_age_seconds", {"issuer": server.url})
        time.sleep(0.5)
        assert site.metric("ollama_proxy_jwks_age_seconds", {"issuer": server.url}) > age
        assert ask(client, token(server, jti="another")).status == 200
        assert json.loads(site.ops("/readyz")[1])["checks"]["issuers"]["status"] == "ok"
    finally:
        server.start()
        client.close()


def test_with_an_issuer_that_was_never_reached_the_proxy_serves_keys_and_says_so(
    start_site: StartSite, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> None:
    issuer = {"issuer": "https://127.0.0.1:9", "audience": AUDIENCE, "discovery": True}
    site = start_site(auth={"failures_per_minute": 0, "jwt": [issuer]})
    client = site.connect()
    assert ask(client, keys.default).status == 200
    client.close()
    status, body = site.ops("/readyz")
    assert (status, json.loads(body)["status"]) == (200, "degraded")
    assert site.metric("ollama_proxy_jwks_age_seconds", {"issuer": "https://127.0.0.1:9"}) == float("inf")
