"""Certificates of clients: a gate for all, and the credential of those that send no other."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.certificates import Authority

from .client import Client, TornError
from .conftest import StartSite, until
from .messages import check_refusal, request
from .site import Keys, Site, keys_command, make_key

ASK = request("GET", "/api/version")
Connects = Callable[..., Client]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    authority = Authority()
    (folder / "ca.crt").write_bytes(authority.certificate)
    return authority


@pytest.fixture(scope="module")
def optional(start_site: StartSite, authority: Authority, folder: Path) -> Site:
    return start_site(tls={"client_ca": str(folder / "ca.crt"), "client_auth": "optional"})


def connect(site: Site, files: tuple[Path, Path] | None, tls: ssl.TLSVersion | None = None) -> Client:
    assert site.trust is not None
    context = ssl.create_default_context(cafile=site.config.parent / "data" / "tls.crt")
    if tls is not None:
        context.maximum_version = tls
    if files is not None:
        context.load_cert_chain(*files)
    return Client.connect(site.port, context)


def answer(site: Site, files: tuple[Path, Path] | None, raw: bytes = ASK) -> tuple[int, str]:
    client = connect(site, files)
    found = client.request(raw)
    client.close()
    return found.status, found.body.decode()


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_whose_name_is_a_keys_has_its_rights(
    tls: ssl.TLSVersion, optional: Site, authority: Authority, folder: Path, named: str
) -> None:
    files = authority.write_client(folder, "read")
    client = connect(optional, files, tls)
    assert client.request(request("GET", "/api/version", None, f"X-Request-Id: {named}")).status == 200
    check_refusal(client.request(request("POST", "/api/chat", body=b'{"model":"m"}')), 403, "scope_denied")
    client.close()
    line = optional.logged(named)
    assert (line["auth"], line["key_name"]) == ("client_certificate", "read")


@pytest.mark.parametrize("name", ["nobody", "revoked", "expired", "READ", "read "])
def test_a_certificate_whose_name_is_no_good_keys_opens_nothing(
    name: str, optional: Site, authority: Authority, folder: Path
) -> None:
    files = authority.write_client(folder, name)
    status, body = answer(optional, files)
    assert status == 401
    assert ("expired_credentials" if name == "expired" else "invalid_credentials") in body


def test_beside_another_credential_it_is_just_the_gate(
    optional: Site, authority: Authority, folder: Path, keys: Keys
) -> None:
    files = authority.write_client(folder, "default")
    assert answer(optional, files, request("GET", "/api/version", keys.read))[0] == 200
    assert answer(optional, files, request("POST", "/api/chat", keys.read, body=b"{}"))[0] == 403
    assert answer(optional, files, request("GET", "/api/version", keys.unknown))[0] == 401


def test_a_web_page_cannot_use_the_certificate_of_its_visitor(
    optional: Site, authority: Authority, folder: Path, keys: Keys
) -> None:
    files = authority.write_client(folder, "default")
    optional.upstream.forget()
    origin = "Origin: https://evil.example"
    status, body = answer(optional, files, request("POST", "/api/chat", None, origin, body=b"{}"))
    assert (status, "missing_credentials" in body) == (401, True)
    assert optional.upstream.reached() == b""
    assert answer(optional, files, request("GET", "/api/version", keys.default, origin))[0] == 200


def test_without_one_keys_work_as_ever_where_it_is_optional(optional: Site, keys: Keys) -> None:
    assert answer(optional, None, request("GET", "/api/version", keys.default))[0] == 200
    assert answer(optional, None)[0] == 401


def test_one_of_another_authority_or_one_that_has_ended_does_not_get_through_the_handshake(
    optional: Site, authority: Authority, folder: Path
) -> None:
    stranger = Authority().write_client(folder, "default")
    ended = authority.write_client(folder, "read", datetime.now(UTC) - timedelta(minutes=1))
    for files in (stranger, ended):
        with pytest.raises((OSError, TornError)):  # the alert comes with the handshake or the first read
            answer(optional, files)


def test_where_it_is_required_nobody_gets_in_without_one(
    start_site: StartSite, authority: Authority, folder: Path, keys: Keys
) -> None:
    site = start_site(tls={"client_ca": str(folder / "ca.crt"), "client_auth": "required"})
    with pytest.raises((OSError, TornError)):
        answer(site, None, request("GET", "/api/version", keys.default))
    files = authority.write_client(folder, "gate only")
    assert answer(site, files, request("GET", "/api/version", keys.default))[0] == 200
    assert answer(site, files)[0] == 401


def test_when_its_key_is_revoked_the_certificate_is_no_use_and_its_requests_end(
    optional: Site, authority: Authority, folder: Path, keys: Keys
) -> None:
    key = make_key(keys.store, "machine")
    keys.more.append(key)
    files = authority.write_client(folder, "machine")
    until(lambda: answer(optional, files)[0] == 200, 5)
    optional.upstream.play("/api/chat")
    client = connect(optional, files)
    client.send(request("POST", "/api/chat", body=b'{"model":"m"}'))
    optional.upstream.next().read_body()
    keys_command(keys.store, "revoke", key.split("_")[1])
    check_refusal(client.response("POST"), 401, "invalid_credentials")
    client.close()
    optional.upstream.forget()
    assert answer(optional, files)[0] == 401


def test_a_connection_that_outlives_its_certificate_has_none_any_more(
    optional: Site, authority: Authority, folder: Path
) -> None:
    files = authority.write_client(folder, "read", datetime.now(UTC) + timedelta(seconds=3))
    client = connect(optional, files)
    assert client.request(ASK).status == 200
    time.sleep(3.5)
    check_refusal(client.request(ASK), 401, "invalid_credentials")
    client.close()


def test_a_plain_connection_is_not_taken_for_one_with_a_certificate(optional: Site) -> None:
    with socket.create_connection(("127.0.0.1", optional.port), 5) as plain:
        plain.sendall(ASK)
        plain.settimeout(5)
        assert not plain.recv(1000).startswith(b"HTTP/1.1 2")
