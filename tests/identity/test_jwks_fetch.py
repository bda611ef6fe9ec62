"""Fetching an issuer's keys over real TLS: from the right place, in time, and within bounds."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from proxy.identity import jwks_fetch
from proxy.identity.issuer import Issuer
from proxy.identity.jwks_fetch import JwksFetch
from proxy.identity.key_set import KeySet, NoKeysError

from .issuer_server import DISCOVERY, KEYS, Answer, IssuerServer, free_port, issuer_server, silent_port
from .tokens import issuer, jwks, key_set, signer

OURS = signer()
SHORT = 0.5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[IssuerServer]:
    with issuer_server(tmp_path) as server:
        server.publish(OURS)
        server.describe()
        yield server


def given_address(server: IssuerServer, **changes: object) -> Issuer:
    settings = {"jwks_url": server.url + KEYS, "ca_file": server.ca_file} | changes
    return issuer(issuer=server.url, **settings)


def discovering(server: IssuerServer, **changes: object) -> Issuer:
    settings = {"discovery": True, "ca_file": server.ca_file, "issuer": server.url} | changes
    return issuer(**settings)


def fetched(one: Issuer | JwksFetch) -> KeySet:
    source = JwksFetch(one) if isinstance(one, Issuer) else one
    return asyncio.run(source.fetch())


def refused(one: Issuer | JwksFetch) -> str:
    with pytest.raises(NoKeysError) as told:
        fetched(one)
    assert told.value.__cause__ is None
    return str(told.value)


def test_keys_are_fetched_from_the_address_given(server: IssuerServer) -> None:
    assert fetched(given_address(server)) == key_set(OURS)
    assert server.requests == [KEYS]


def test_keys_are_fetched_from_the_address_discovered(server: IssuerServer) -> None:
    assert fetched(discovering(server)) == key_set(OURS)
    assert server.requests == [DISCOVERY, KEYS]


def test_an_issuer_in_a_folder_is_discovered_there(server: IssuerServer) -> None:
    for name in ("/realms/main", "/realms/main/"):
        server.describe(issuer=server.url + name)
        server.answers["/realms/main" + DISCOVERY] = server.answers[DISCOVERY]
        server.requests.clear()
        assert fetched(discovering(server, issuer=server.url + name)) == key_set(OURS)
        assert server.requests == ["/realms/main" + DISCOVERY, KEYS]


def test_the_discovered_address_is_kept_until_it_fails(server: IssuerServer) -> None:
    source = JwksFetch(discovering(server))
    for _ in range(3):
        fetched(source)
    assert server.requests == [DISCOVERY, KEYS, KEYS, KEYS]
    server.requests.clear()
    server.answers["/moved"] = server.answers.pop(KEYS)
    server.describe(jwks_uri=server.url + "/moved")
    assert fetched(source) == key_set(OURS)
    assert server.requests == [KEYS, DISCOVERY, "/moved"]


def test_an_address_that_never_worked_is_not_kept(server: IssuerServer) -> None:
    source = JwksFetch(discovering(server))
    server.describe(jwks_uri=server.url + "/wrong")
    assert refused(source) == "it answered with status 404"
    server.describe()
    assert fetched(source) == key_set(OURS)


def test_http_is_allowed_on_this_machine(tmp_path: Path) -> None:
    with issuer_server(tmp_path, tls=False) as server:
        server.publish(OURS)
        server.describe()
        assert fetched(given_address(server, ca_file=None)) == key_set(OURS)
        assert fetched(discovering(server, ca_file=None)) == key_set(OURS)


# Whom we believe


def test_a_certificate_of_an_unknown_ca_is_refused(server: IssuerServer) -> None:
    for one in (given_address(server, ca_file=None), discovering(server, ca_file=None)):
        assert refused(one) == "its certificate is not trusted: set ca_file for a private CA"
    assert server.requests == []


def test_a_certificate_of_another_private_ca_is_refused(server: IssuerServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with issuer_server(tmp_path / "other") as other:
        assert "not trusted" in refused(given_address(server, ca_file=other.ca_file))


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    with issuer_server(tmp_path, name="issuer.example") as server:
        server.publish(OURS)
        assert "not trusted" in refused(given_address(server))


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_file_that_cannot_be_read_is_told(server: IssuerServer, content: bytes | None) -> None:
    file = server.ca_file.with_name("broken.pem")
    if content is not None:
        file.write_bytes(content)
    assert refused(given_address(server, ca_file=file)) == f"{file} holds no readable CA certificate"


def test_a_new_ca_file_counts_at_the_next_fetch(server: IssuerServer) -> None:
    file = server.ca_file.with_name("later.pem")
    source = JwksFetch(given_address(server, ca_file=file))
    refused(source)
    file.write_bytes(server.ca_file.read_bytes())
    assert fetched(source) == key_set(OURS)


def test_proxies_named_in_the_environment_see_nothing(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    assert fetched(given_address(server)) == key_set(OURS)


@pytest.mark.parametrize("named", ["https://other.example", "", None, 1, ["URL"], "URL/", "url"])
def test_a_discovery_document_of_another_issuer_is_refused(server: IssuerServer, named: object) -> None:
    text = json.dumps(named).replace("URL", server.url)
    server.describe(issuer=json.loads(text))
    assert refused(discovering(server)) == "its discovery document is that of another issuer"
    assert server.requests == [DISCOVERY]


@pytest.mark.parametrize(
    "address",
    ["http://issuer.example/keys", "http://127.0.0.1:1/keys", "http://localhost/keys", "file:///etc/passwd",
     "ftp://issuer.example", "/keys", "//issuer.example/keys", "", "keys", None, 1, ["URL/keys"], "data:,{}"],
)  # fmt: skip
def test_an_issuer_over_https_may_not_send_us_elsewhere(server: IssuerServer, address: object) -> None:
    server.describe(jwks_uri=address)
    assert refused(discovering(server)) == "its discovery document names no https address with keys"
    assert server.requests == [DISCOVERY]


@pytest.mark.parametrize(
    "address", ["http://10.0.0.1/keys", "http://issuer.example/keys", "http://localhost.example/"]
)
def test_an_issuer_over_http_may_only_send_us_to_this_machine(tmp_path: Path, address: str) -> None:
    with issuer_server(tmp_path, tls=False) as server:
        server.describe(jwks_uri=address)
        assert "no https address" in refused(discovering(server, ca_file=None))


@pytest.mark.parametrize(
    "address", ["http://issuer.example/keys", "http://192.0.2.1", "ftp://x", "", "//", "http://["]
)
def test_only_https_is_asked_elsewhere(address: str) -> None:
    assert (
        refused(issuer(discovery=True, issuer=address)) == "its address is neither https nor on this machine"
    )
    if address:
        told = refused(issuer(jwks_url=address))
        assert told == "its address is neither https nor on this machine"


# What we take for keys


@pytest.mark.parametrize(
    "status", [201, 204, 206, 301, 302, 303, 307, 308, 400, 401, 403, 404, 429, 500, 503]
)
def test_any_status_but_200_is_refused(server: IssuerServer, status: int) -> None:
    body = b"" if status == 204 else jwks(OURS.jwk())
    server.answers[KEYS] = Answer(body, status, {"Location": server.url + "/elsewhere"})
    server.answers["/elsewhere"] = Answer(jwks(OURS.jwk()))
    assert refused(given_address(server)) == f"it answered with status {status}"
    assert server.requests == [KEYS], "a redirect is not followed"


def test_a_redirected_discovery_is_refused(server: IssuerServer) -> None:
    server.answers["/elsewhere"] = server.answers[DISCOVERY]
    server.answers[DISCOVERY] = Answer(b"", 302, {"Location": server.url + "/elsewhere"})
    assert refused(discovering(server)) == "it answered with status 302"
    assert server.requests == [DISCOVERY]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"keys":{}}', b"<html>", b'{"keys":[]} x', b"\xff", jwks(OURS.jwk())[:-1],
     json.dumps(OURS.jwk()).encode(), OURS.pem(), b"[" * 100_000],
    ids=count(),  # the same for every worker, and our key is another one each time
)  # fmt: skip
def test_what_is_no_set_of_keys_is_refused(server: IssuerServer, body: bytes) -> None:
    server.answers[KEYS] = Answer(body)
    assert refused(given_address(server)) == "its answer is no JSON object with a list 'keys'"


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'{"issuer":1,"issuer":2}'])
def test_what_is_no_discovery_document_is_refused(server: IssuerServer, body: bytes) -> None:
    server.answers[DISCOVERY] = Answer(body)
    assert refused(discovering(server)) == "its discovery document is no JSON object"


def test_the_content_type_does_not_matter(server: IssuerServer) -> None:
    server.answers[KEYS].headers["Content-Type"] = "text/plain"
    assert fetched(given_address(server)) == key_set(OURS)


@pytest.mark.parametrize("path", [KEYS, DISCOVERY])
def test_a_compressed_answer_is_refused_unread(server: IssuerServer, path: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    server.answers[path] = Answer(bomb, headers={"Content-Encoding": "gzip"})
    assert refused(discovering(server)) == "its answer is compressed"


# Bounds


@pytest.mark.parametrize("path", [KEYS, DISCOVERY])
def test_an_answer_without_an_end_is_cut(server: IssuerServer, path: str) -> None:
    server.answers[path] = Answer(b'{"keys":[', endless=True)
    assert refused(discovering(server)) == "its answer is larger than 1048576 bytes"
    assert server.sent < 20_000_000


def test_an_answer_of_a_megabyte_is_read_and_one_byte_more_is_not(server: IssuerServer) -> None:
    whole = jwks(OURS.jwk())
    server.answers[KEYS] = Answer(whole + b" " * (jwks_fetch.MAX_ANSWER - len(whole)))
    assert fetched(given_address(server)) == key_set(OURS)
    server.answers[KEYS].body += b" "
    assert "larger" in refused(given_address(server))


@pytest.mark.parametrize("path", [KEYS, DISCOVERY])
@pytest.mark.parametrize(
    "slow", [Answer(wait=30), Answer(b" " * 1000, drip=0.05)], ids=["silent", "dripping"]
)
def test_a_slow_answer_is_not_waited_for(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch, path: str, slow: Answer
) -> None:
    monkeypatch.setattr(jwks_fetch, "TIMEOUT", SHORT)
    server.answers[path] = slow
    begun = time.monotonic()
    assert refused(discovering(server)) == "no whole answer within 0.5 s"
    assert time.monotonic() - begun < SHORT + 1


def test_the_bound_is_one_for_discovery_and_keys_together(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_fetch, "TIMEOUT", 1.0)
    server.answers[DISCOVERY].wait = server.answers[KEYS].wait = 0.7
    begun = time.monotonic()
    assert "no whole answer" in refused(discovering(server))
    assert time.monotonic() - begun < 1.4
    assert server.requests == [DISCOVERY, KEYS]


def test_a_handshake_that_never_comes_is_not_waited_for(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_fetch, "TIMEOUT", SHORT)
    with silent_port() as port:
        one = given_address(server, jwks_url=f"https://127.0.0.1:{port}/keys")
        assert "no whole answer" in refused(one)


def test_the_bound_that_users_are_promised() -> None:
    assert (jwks_fetch.TIMEOUT, jwks_fetch.MAX_ANSWER) == (5.0, 1024 * 1024)


def test_an_issuer_that_is_away_is_told_as_such(server: IssuerServer) -> None:
    server.stop()
    for one in (given_address(server), discovering(server)):
        assert refused(one) == "it cannot be reached"


def test_plain_http_where_tls_was_meant_is_told_as_such(tmp_path: Path) -> None:
    with issuer_server(tmp_path, tls=False) as plain:
        one = issuer(jwks_url=plain.url.replace("http:", "https:") + KEYS)
        assert refused(one) == "it cannot be reached"


def test_a_broken_answer_is_told_as_such(server: IssuerServer) -> None:
    server.answers[KEYS] = Answer(b"{}", headers={"Transfer-Encoding": "chunked"})
    assert refused(given_address(server)) == "its answer broke off or is no HTTP"
