"""A new configuration is in force at once for what begins then, or not at all; what is open goes on."""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority, certificate, ec_key, private_key
from tests.identity.issuer_server import IssuerServer, issuer_server
from tests.identity.tokens import AUDIENCE, claims, signer

from .client import Client, TornError
from .conftest import Connect, StartSite, until
from .messages import check_refusal, request
from .site import Keys, Site, toml
from .upstream import message

NDJSON = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")]
FOLLOWED = 10.0
"""Seconds in which a changed file is read."""

SUCCESS = "ollama_proxy_config_reload_success"
TIMESTAMP = "ollama_proxy_config_reload_timestamp_seconds"
EXPIRY = "ollama_proxy_tls_certificate_expiry_timestamp_seconds"
ORIGIN = "https://chat.example.com"
VERSION = "/api/version"


def write_pair(folder: Path, days: int = 90) -> bytes:
    """`tls.crt` and `tls.key` in the folder; returns the certificate as it is in a handshake."""
    key = ec_key()
    pem = certificate(key, "proxy.example", datetime.now(UTC) + timedelta(days=days))
    (folder / "tls.crt").write_bytes(pem)
    (folder / "tls.key").write_bytes(private_key(key))
    return ssl.PEM_cert_to_DER_cert(pem.decode())


def anyone() -> ssl.SSLContext:
    """Speaks with whoever is there; the tests look at the certificate themselves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def shown(site: Site) -> bytes:
    """The certificate that a new connection is shown."""
    client = site.connect()
    assert isinstance(client.sock, ssl.SSLSocket)
    found = client.sock.getpeercert(binary_form=True)
    client.close()
    return found or b""


class Settings:
    """The configuration file of a running proxy."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.first = tomllib.loads(site.config.read_text())
        self.told = 0

    def write(self, **tables: dict[str, Any]) -> None:
        """What the proxy began with, and these changes."""
        self.site.config.write_text(
            toml({name: self.first.get(name, {}) | tables.get(name, {}) for name in {**self.first, **tables}})
        )

    def lines(self) -> list[dict[str, Any]]:
        """What the audit log tells of configurations."""
        found = [line for line in list(self.site.log) if line.get("event") == "audit"]
        return [line for line in found if line["action"].startswith("configuration_")]

    def next(self, timeout: float = FOLLOWED) -> dict[str, Any]:
        """The next of these lines."""
        until(lambda: len(self.lines()) > self.told, timeout, "no line tells of the configuration")
        self.told += 1
        return self.lines()[self.told - 1]

    def hang_up(self) -> dict[str, Any]:
        self.told = len(self.lines())
        self.site.process.send_signal(signal.SIGHUP)
        return self.next()

    def now(self, **tables: dict[str, Any]) -> dict[str, Any]:
        """Write the changes, have them read, and return the line that tells of it."""
        self.write(**tables)
        return self.hang_up()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def tls_site(start_site: StartSite, folder: Path) -> Site:
    write_pair(folder)
    files = {"certificate": str(folder / "tls.crt"), "private_key": str(folder / "tls.key")}
    site = start_site(tls={"mode": "files", **files})
    site.trust = anyone()
    return site


@pytest.fixture
def settings(site: Site) -> Iterator[Settings]:
    """At the end everything is as it was."""
    settings = Settings(site)
    settings.told = len(settings.lines())
    yield settings
    if site.config.read_text() != toml(settings.first):
        assert settings.now()["action"] == "configuration_changed"


def ask(client: Client, key: str | None = None, path: str = VERSION, *fields: str) -> int:
    return client.request(request("GET", path, key, *fields)).status


def generate(key: str, model: str, *fields: str) -> bytes:
    return request("POST", "/api/generate", key, *fields, body=b'{"model":"%s"}' % model.encode())


# Each option, on a connection that was there before


def test_the_cloud_is_opened_and_closed(connect: Connect, keys: Keys, settings: Settings) -> None:
    client = connect()
    assert client.request(generate(keys.every, "m:cloud")).status == 200
    assert settings.now(policy={"cloud": False})["changed"] == ["policy.cloud"]
    check_refusal(client.request(generate(keys.every, "m:cloud")), 403, "cloud_denied")
    settings.now(policy={"cloud": True})
    assert client.request(generate(keys.every, "m:cloud")).status == 200


def test_routes_are_opened_to_everybody_and_closed(connect: Connect, settings: Settings) -> None:
    client = connect()
    assert (ask(client), ask(client, path="/")) == (401, 200)
    settings.now(auth={"anonymous": [f"GET {VERSION}"]})
    assert (ask(client), ask(client, path="/")) == (200, 401)
    settings.now()
    assert (ask(client), ask(client, path="/")) == (401, 200)


def test_keys_count_in_the_path_when_that_is_allowed(
    connect: Connect, keys: Keys, settings: Settings
) -> None:
    client = connect()
    assert ask(client, path=f"/~{keys.read}{VERSION}") != 200
    settings.now(auth={"path_keys": True})
    assert ask(client, path=f"/~{keys.read}{VERSION}") == 200
    assert any("auth.path_keys" in line.get("message", "") for line in settings.site.log), "no warning"
    settings.now()
    assert ask(client, path=f"/~{keys.read}{VERSION}") != 200


def test_kinds_of_credentials_are_closed_and_opened(connect: Connect, keys: Keys, settings: Settings) -> None:
    client = connect()
    assert ask(client, keys.read) == 200
    settings.now(auth={"api_keys": False})
    assert ask(client, keys.read) == 401
    settings.now()
    assert ask(client, keys.read) == 200


def test_bad_credentials_are_throttled_by_the_new_number(
    connect: Connect, keys: Keys, settings: Settings
) -> None:
    client = connect()
    assert [ask(client, keys.unknown) for _ in range(4)] == [401] * 4
    settings.now(auth={"failures_per_minute": 2})
    assert [ask(client, keys.unknown) for _ in range(3)] == [401, 401, 429]
    settings.now(auth={"failures_per_minute": 2}, policy={"cloud": False})
    assert ask(client, keys.unknown) == 429, "a change of something else forgets no failures"
    settings.now(auth={"failures_per_minute": 3})
    assert ask(client, keys.unknown) == 401


def test_balancers_are_trusted_when_they_are_named(
    connect: Connect, keys: Keys, settings: Settings, named: str
) -> None:
    client, site = connect(), settings.site
    assert ask(client, keys.read, VERSION, f"X-Request-Id: {named}-1", "X-Forwarded-For: 192.0.2.7") == 200
    settings.now(listen={"trusted_proxies": ["127.0.0.0/8"]})
    assert ask(client, keys.read, VERSION, f"X-Request-Id: {named}-2", "X-Forwarded-For: 192.0.2.7") == 200
    assert [site.logged(f"{named}-{number}")["client"] for number in (1, 2)] == ["127.0.0.1", "192.0.2.7"]


def test_pages_may_use_the_proxy_when_their_origin_is_named(
    connect: Connect, keys: Keys, settings: Settings
) -> None:
    client = connect()
    preflight = request(
        "OPTIONS", "/api/chat", None, f"Origin: {ORIGIN}", "Access-Control-Request-Method: POST"
    )
    assert client.request(preflight).status == 401
    settings.now(cors={"allow_origins": [ORIGIN]})
    assert client.request(preflight).header("access-control-allow-origin") == ORIGIN
    page = client.request(request("GET", VERSION, keys.read, f"Origin: {ORIGIN}"))
    assert page.header("access-control-allow-origin") == ORIGIN
    refused = client.request(request("GET", VERSION, None, f"Origin: {ORIGIN}"))
    assert (refused.status, refused.header("access-control-allow-origin")) == (401, ORIGIN)
    settings.now()
    assert client.request(preflight).status == 401
    assert not client.request(request("GET", VERSION, keys.read, f"Origin: {ORIGIN}")).all(
        "access-control-allow-origin"
    )


def test_requests_are_logged_or_not(connect: Connect, keys: Keys, settings: Settings, named: str) -> None:
    client, site = connect(), settings.site
    settings.now(log={"access": False})
    assert ask(client, keys.read, VERSION, f"X-Request-Id: {named}-1") == 200
    settings.now()
    assert ask(client, keys.read, VERSION, f"X-Request-Id: {named}-2") == 200
    site.logged(f"{named}-2")
    assert f"{named}-1" not in "".join(site.out)


def test_the_log_becomes_text_and_json_again(
    connect: Connect, keys: Keys, settings: Settings, named: str
) -> None:
    client, site = connect(), settings.site
    settings.write(log={"format": "text"})
    settings.told = len(settings.lines())
    before, lines = site.metric(TIMESTAMP, {}), len(site.out)
    site.process.send_signal(signal.SIGHUP)
    until(lambda: site.metric(TIMESTAMP, {}) > before, 5)
    assert ask(client, keys.read, VERSION, f"X-Request-Id: {named}") == 200
    until(lambda: named in "".join(site.out[lines:]))
    text = site.out[lines:]
    assert not any(line.startswith("{") for line in text)
    assert any("log.format changed" in line for line in text)
    assert settings.now()["changed"] == ["log.format"]
    json.loads(site.out[-1])


def test_the_level_of_the_log_spares_no_audit_line(settings: Settings) -> None:
    site, before = settings.site, len(settings.site.log)
    line = settings.now(log={"level": "error"}, auth={"path_keys": True})
    assert line["changed"] == ["auth.path_keys", "log.level"]
    settings.hang_up()
    told = {line["event"] if line["event"] == "audit" else line["logger"] for line in site.log[before:]}
    assert told == {"audit", "ollama_auth_proxy.configuration"}, "dangers are always told, the rest is not"


def test_heads_are_bounded_by_the_new_size(connect: Connect, keys: Keys, settings: Settings) -> None:
    client = connect()
    assert ask(client, keys.read, VERSION, "X-Long: " + 3000 * "x") == 200
    settings.now(listen={"max_header_bytes": "2KiB"})
    check_refusal(
        client.request(request("GET", VERSION, keys.read, "X-Long: " + 3000 * "x")), 431, "headers_too_large"
    )


def test_slow_heads_and_idle_connections_end_at_the_new_times(
    connect: Connect, keys: Keys, settings: Settings
) -> None:
    slow, idle = connect(), connect()
    assert ask(idle, keys.read) == 200
    settings.now(listen={"header_timeout": "1s", "idle_timeout": "1s"})
    slow.send(b"GET / HT")
    started = time.monotonic()
    assert idle.end(5) == "closed"
    assert slow.response().status == 408
    assert time.monotonic() - started < 4


def test_connections_that_wait_are_taken_in_when_there_is_room_by_the_new_number(
    settings: Settings, keys: Keys
) -> None:
    """Over the limit 64 are told so, and those after them wait."""
    settings.now(listen={"max_connections": 1})
    clients = [settings.site.connect()]
    for _ in range(64):
        clients.append(settings.site.connect())
    with pytest.raises((TimeoutError, OSError)):
        settings.site.connect(timeout=0.5)
    late = threading.Thread(target=lambda: clients.append(settings.site.connect()))
    late.start()
    settings.now(listen={"max_connections": 1000})
    late.join(5)
    assert ask(clients[-1], keys.read) == 200
    for client in clients:
        client.close()
    settings.site.wait_for_metric("ollama_proxy_open_connections", 0, 5)


def scrape(site: Site, token: str) -> int:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{site.ops_port}/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_token_of_the_metrics_is_asked_for_and_changed(settings: Settings, folder: Path) -> None:
    site, file = settings.site, folder / "token"
    file.write_text("first-token\n")
    assert settings.now(ops={"token_file": str(file)})["changed"] == ["ops.token_file"]
    assert (site.ops("/metrics")[0], scrape(site, "first-token")) == (401, 200)
    file.write_text("second-token\n")
    assert settings.hang_up()["changed"] == ["ops.token_file"]
    assert (scrape(site, "first-token"), scrape(site, "second-token")) == (401, 200)
    settings.now()
    assert site.ops("/metrics")[0] == 200
    assert not {"first-token", "second-token"} & {word for line in site.out for word in line.split('"')}


# Issuers


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuerServer]:
    with issuer_server(tmp_path_factory.mktemp("issuer")) as server:
        server.publish(signer())
        server.describe()
        yield server


def test_issuers_come_change_and_go(
    connect: Connect, settings: Settings, issuer: IssuerServer, folder: Path, keys: Keys
) -> None:
    client, now = connect(), int(time.time())
    times = {"exp": now + 300, "iat": now, "nbf": now}
    token = signer().token(claims(iss=issuer.url, **times)).decode()
    bearer = f"Authorization: Bearer {token}"
    table = {"issuer": issuer.url, "audience": AUDIENCE, "discovery": True, "ca_file": str(issuer.ca_file)}
    assert ask(client, None, VERSION, bearer) == 401
    assert settings.now(auth={"jwt": [table]})["changed"] == ["auth.jwt"]
    assert ask(client, None, VERSION, bearer) == 200, "the first token waits for the keys"
    # Another one comes, which is never reached; the keys of the first stay.
    other = {"issuer": "https://127.0.0.1:9/", "audience": AUDIENCE, "discovery": True}
    asked = len(issuer.requests)
    issuer.stop()
    settings.now(auth={"jwt": [other, table]})
    assert ask(client, None, VERSION, bearer) == 200, "the issuer is away, and its keys are known"
    issuer.start()
    settings.now(auth={"jwt": [table | {"audience": "others"}]})
    assert ask(client, None, VERSION, bearer) == 401
    settings.now(auth={"jwt": [table | {"default_scopes": ["manage"], "scope_claim": "none"}]})
    until(lambda: len(issuer.requests) > asked, 5)
    until(lambda: ask(client, None, VERSION, bearer) == 403, 5)
    settings.now()
    assert ask(client, None, VERSION, bearer) == 401
    assert ask(client, keys.read) == 200


# Certificates


def stream(site: Site, client: Client, key: str) -> tuple[Any, Any]:
    """An answer that is open: the upstream's hand and the client's."""
    site.upstream.play("/api/chat")
    client.send(request("POST", "/api/chat", key, body=b'{"model":"m"}'))
    exchange = site.upstream.next()
    exchange.read_body()
    exchange.send(message("200 OK", NDJSON, length=False))
    exchange.chunk(b"line 0\n")
    head = client.head("POST")
    assert client.piece(head) == b"line 0\n"
    return exchange, head


def test_a_stream_that_is_open_goes_on_byte_for_byte(
    connect: Connect, keys: Keys, settings: Settings, folder: Path
) -> None:
    client, told = connect(), b"line 0\n"
    exchange, head = stream(settings.site, client, keys.default)
    write_pair(folder)
    for number in range(1, 5):
        settings.now(
            policy={"cloud": number % 2 == 0},
            auth={"api_keys": False, "path_keys": False},
            listen={"idle_timeout": f"{number}s", "max_connections": number},
            log={"access": True, "level": ("debug", "error")[number % 2]},
        )
        line = b"line %d\n" % number * 1000
        exchange.chunk(line)
        told += line
    exchange.send(b"0\r\n\r\n")
    exchange.finish()
    while client.piece(head):
        pass
    assert (head.body, head.torn) == (told, None)
    assert ask(client, keys.default) == 401, "the same connection, by the new rules"


def test_new_connections_see_the_new_certificate_and_old_ones_stay(
    connect: Connect, keys: Keys, settings: Settings, folder: Path
) -> None:
    site, kept, busy = settings.site, connect(), connect()
    assert ask(kept, keys.read) == 200
    exchange, head = stream(site, busy, keys.default)
    before = shown(site)
    new = write_pair(folder, days=47)
    assert new != before
    settings.hang_up()
    assert shown(site) == new
    ends = site.metric(EXPIRY, {})
    assert abs(ends - time.time() - 47 * 86400) < 60
    assert ask(kept, keys.read) == 200
    exchange.chunk(b"more\n")
    exchange.send(b"0\r\n\r\n")
    exchange.finish()
    while busy.piece(head):
        pass
    assert (head.body, head.torn) == (b"line 0\nmore\n", None)


def test_a_pair_that_is_replaced_file_by_file_is_followed_as_a_pair(settings: Settings, folder: Path) -> None:
    site, key = settings.site, ec_key()
    pem = certificate(key)
    settings.told = len(settings.lines())
    (folder / "tls.crt").write_bytes(pem)
    time.sleep(1)  # less than between two looks
    (folder / "tls.key").write_bytes(private_key(key))
    started = time.monotonic()
    until(lambda: shown(site) == ssl.PEM_cert_to_DER_cert(pem.decode()), FOLLOWED)
    assert time.monotonic() - started < FOLLOWED
    until(lambda: settings.lines()[settings.told :])  # the line is on its way when the certificate is there
    actions = [line["action"] for line in settings.lines()[settings.told :]]
    assert actions == ["configuration_changed"]
    assert site.metric(SUCCESS, {}) == 1


def test_a_key_that_does_not_fit_is_refused_and_the_old_pair_stays(
    keys: Keys, connect: Connect, settings: Settings, folder: Path
) -> None:
    site, before = settings.site, shown(settings.site)
    good = (folder / "tls.key").read_bytes()
    (folder / "tls.key").write_bytes(private_key(ec_key()))
    line = settings.hang_up()
    assert line["action"] == "configuration_refused"
    (fault,) = line["faults"]
    assert "tls.private_key" in fault
    assert "is not the key of" in fault
    assert site.metric(SUCCESS, {}) == 0
    assert shown(site) == before
    assert ask(connect(), keys.read) == 200
    (folder / "tls.key").write_bytes(good)
    assert settings.next()["action"] == "configuration_changed"  # by itself
    assert site.metric(SUCCESS, {}) == 1


def test_certificates_of_clients_are_asked_for_by_the_new_authority(
    keys: Keys, connect: Connect, settings: Settings, folder: Path
) -> None:
    site, first, second = settings.site, Authority("First"), Authority("Second")
    file = folder / "ca.crt"
    file.write_bytes(first.certificate)

    def connected(authority: Authority, name: str = "read") -> Client:
        context = anyone()
        context.load_cert_chain(*authority.write_client(folder, name))
        return Client.connect(site.port, context)

    before = connect()
    assert ask(before, keys.read) == 200
    settings.now(tls={"client_ca": str(file), "client_auth": "optional"})
    assert before.end(2) == "closed", "who came in before the gate stood there"
    idle, busy = connected(first), connected(first)
    assert ask(idle) == 200
    exchange, head = stream(site, busy, keys.default)

    file.write_bytes(second.certificate)
    settings.hang_up()
    assert idle.end(2) == "closed"
    exchange.send(b"0\r\n\r\n")
    exchange.finish()
    while busy.piece(head):
        pass
    assert (head.body, head.torn) == (b"line 0\n", None)
    assert busy.end(2) == "closed"
    site.upstream.forget()
    with pytest.raises((OSError, TornError)):
        ask(connected(first))
    now = connected(second)
    assert ask(now) == 200

    settings.now(tls={"client_ca": str(file), "client_auth": "required"})
    assert now.end(2) == "closed"
    with pytest.raises((OSError, TornError)):
        ask(site.connect(), keys.read)
    assert ask(connected(second), keys.read) == 200
    settings.now()
    assert ask(connect(), keys.read) == 200


# What is not taken over


def test_what_needs_a_restart_is_said_and_does_not_count(
    keys: Keys, connect: Connect, settings: Settings, tmp_path: Path
) -> None:
    site = settings.site
    changes: dict[str, dict[str, Any]] = {
        "listen": {"address": "127.0.0.1:1", "max_header_bytes": "20KiB"},
        "upstream": {"url": "http://127.0.0.1:9", "connect_timeout": "1s"},
        "ops": {"address": "127.0.0.1:2"},
        "store": {"url": f"sqlite:///{tmp_path / 'other.db'}"},
        "policy": {"max_guarded_body": "1MiB"},
        "tls": {"mode": "off", "certificate": "", "private_key": ""},
    }
    for _ in range(2):  # each time, for as long as it is so
        line = settings.now(**changes)
        assert line["restart_needed"] == [
            *("listen.address", "ops.address", "policy.max_guarded_body"),
            *("store.url", "tls.mode", "upstream.url"),
        ]
        assert "will not count before a restart" in line["message"]
    assert shown(site)
    assert ask(connect(), keys.read) == 200
    assert site.metric(SUCCESS, {}) == 1
    assert not (tmp_path / "other.db").exists()
    assert settings.now()["restart_needed"] == []


FAULTY = """
[listen]
address = "nowhere"
idle_timeout = 5
[policy]
clowd = true
[auth]
anonymous = ["GET /secret-route-of-nobody"]
"""


def test_an_invalid_file_is_refused_whole_and_every_fault_is_told(
    keys: Keys, connect: Connect, settings: Settings
) -> None:
    site, client = settings.site, connect()
    before = site.metric(TIMESTAMP, {})
    site.config.write_text(FAULTY)
    line = settings.hang_up()
    assert (line["action"], line["level"], line["event"]) == ("configuration_refused", "error", "audit")
    assert [fault.split(": ")[1] for fault in line["faults"]] == [
        *("policy.clowd", "listen.address", "listen.idle_timeout", "auth.anonymous")
    ]
    assert site.metric(SUCCESS, {}) == 0
    assert site.metric(TIMESTAMP, {}) == before
    assert ask(client, keys.read) == 200
    # One good change beside a bad one does not count either.
    settings.write(policy={"cloud": False}, listen={"idle_timeout": "never"})
    assert len(settings.hang_up()["faults"]) == 1
    assert client.request(generate(keys.every, "m:cloud")).status == 200
    time.sleep(0.01)
    assert settings.now()["action"] == "configuration_changed"
    assert site.metric(SUCCESS, {}) == 1
    assert site.metric(TIMESTAMP, {}) > before


def test_a_file_that_is_gone_changes_nothing(keys: Keys, connect: Connect, settings: Settings) -> None:
    site = settings.site
    site.config.unlink()
    line = settings.hang_up()
    assert "cannot be read" in line["faults"][0]
    assert site.metric(SUCCESS, {}) == 0
    assert ask(connect(), keys.read) == 200
    assert settings.now()["action"] == "configuration_changed"


def test_what_mends_a_configuration_may_be_a_file_that_only_it_names(
    settings: Settings, folder: Path, tmp_path: Path
) -> None:
    site, later = settings.site, tmp_path / "later"
    line = settings.now(ops={"token_file": str(later)})
    assert "ops.token_file" in line["faults"][0]
    later.write_text("a-token")
    started = time.monotonic()
    assert settings.next()["changed"] == ["ops.token_file"]
    assert time.monotonic() - started < FOLLOWED
    assert scrape(site, "a-token") == 200


# Under load, and without a signal


def test_twenty_reloads_in_a_row_lose_nothing(settings: Settings, keys: Keys, folder: Path) -> None:
    site, over = settings.site, threading.Event()
    counts: list[int] = []
    faults: list[BaseException] = []

    def ask_on(fresh: bool) -> None:
        try:
            client, done = site.connect(), 0
            while not over.is_set():
                assert (
                    client.request(request("POST", "/api/chat", keys.default, body=b'{"model":"m"}')).torn
                    is None
                )
                done += 1
                if fresh:
                    client.close()
                    client = site.connect()
            client.close()
            counts.append(done)
        except BaseException as error:
            faults.append(error)

    before = site.samples()
    threads = [threading.Thread(target=ask_on, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        if number % 5 == 0:
            write_pair(folder)
        settings.write(policy={"cloud": number % 2 == 0})
        site.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join(10)
    assert not faults
    assert sum(counts) > 20
    labels = {"route": "/api/chat", "method": "POST", "code": "200"}
    name = "ollama_proxy_requests_total"
    expected = site.metric(name, labels, before) + sum(counts)
    assert site.wait_for_metric(name, expected, 2, **labels) == expected
    assert settings.hang_up()["action"] == "configuration_changed"
    assert site.metric(SUCCESS, {}) == 1


def test_a_request_whose_body_is_on_its_way_keeps_to_the_rules_it_began_under(
    connect: Connect, keys: Keys, settings: Settings, named: str
) -> None:
    site, client = settings.site, connect()
    body = b'{"model":"m:cloud"}'
    fields = [f"X-Request-Id: {named}", f"Content-Length: {len(body)}"]
    client.send(request("POST", "/api/chat", keys.every, *fields) + body[:5])
    until(lambda: site.metric("ollama_proxy_requests_in_flight", {"route": "/api/chat"}) == 1)
    settings.now(policy={"cloud": False}, log={"access": False})
    client.send(body[5:])
    assert client.response("POST").status == 200
    assert site.logged(named)["status"] == 200
    check_refusal(client.request(request("POST", "/api/chat", keys.every, body=body)), 403, "cloud_denied")


def test_a_mounted_secret_is_followed_when_its_link_is_swapped(
    start_site: StartSite, tmp_path: Path, keys: Keys
) -> None:
    """Kubernetes writes a new folder and then moves a link to it over the old one."""
    mounted = tmp_path / "mounted"
    first, second = mounted / "..2026_01", mounted / "..2026_02"
    first.mkdir(parents=True)
    second.mkdir()
    old, new = write_pair(first), write_pair(second, days=30)
    (mounted / "..data").symlink_to(first.name)
    for name in ("tls.crt", "tls.key"):
        (mounted / name).symlink_to(f"..data/{name}")
    files = {"certificate": str(mounted / "tls.crt"), "private_key": str(mounted / "tls.key")}
    site = start_site(tls={"mode": "files", **files})
    site.trust = anyone()
    kept = site.connect()
    assert (ask(kept, keys.read), shown(site)) == (200, old)
    settings = Settings(site)
    (mounted / "..data_tmp").symlink_to(second.name)
    os.rename(mounted / "..data_tmp", mounted / "..data")
    (first / "tls.crt").unlink()
    (first / "tls.key").unlink()
    settings.write(auth={"failures_per_minute": 7})
    started = time.monotonic()
    line = settings.next()
    assert time.monotonic() - started < FOLLOWED
    assert line["changed"] == ["auth.failures_per_minute"]
    assert shown(site) == new
    assert abs(site.metric(EXPIRY, {}) - time.time() - 30 * 86400) < 60
    assert ask(kept, keys.read) == 200
    kept.close()
