"""Certificates that clients will refuse, now or soon, are found before they do."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from proxy.config import load
from proxy.doctor import certificate
from proxy.doctor.certificate import Certificate, judge_names, judge_trust
from proxy.doctor.findings import Finding, Level
from proxy.tls import ensure_self_signed

from ..certificates import Authority
from ..wire.site import toml
from .chains import Server


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The one authority that this machine trusts, as far as the test goes."""
    root = Authority("Root")
    (tmp_path / "trusted.pem").write_bytes(root.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return root


def check(
    folder: Path, tls: dict[str, str], address: str = "127.0.0.1:8443", ahead: float = 0.0
) -> dict[str, Finding]:
    """The findings by code; ``ahead`` is in days."""
    file = folder / "config.toml"
    file.write_text(toml({"listen": {"address": address}, "tls": tls}))
    findings = certificate.check(load(file, {}), time.time() + ahead * 86400)
    return {finding.code: finding for finding in findings}


# Chain


def test_a_chain_to_an_authority_of_this_machine_is_well(root: Authority, tmp_path: Path) -> None:
    below = Authority("Below", root)
    found = check(tmp_path, Server(issuer=below).write(tmp_path, below.certificate))
    assert {code: finding.level for code, finding in found.items()} == {
        "certificate_chain": Level.OK,
        "certificate_dates": Level.OK,
        "certificate_names": Level.OK,
    }


def test_a_missing_intermediate_is_found(root: Authority, tmp_path: Path) -> None:
    found = check(tmp_path, Server(issuer=Authority("Below", root)).write(tmp_path))["chain_incomplete"]
    assert found.level is Level.WARNING
    assert "CN=Below" in found.seen
    assert "fullchain.pem" in found.mend


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("with_root", [False, True])
def test_an_authority_of_ones_own_is_a_note(tmp_path: Path, with_root: bool) -> None:
    own = Authority("Own")
    below = Authority("Below", own)
    above = [below.certificate, own.certificate] if with_root else [below.certificate]
    found = check(tmp_path, Server(issuer=below).write(tmp_path, *above))["private_authority"]
    assert found.level is Level.NOTE
    assert "CN=Own" in found.seen


@pytest.mark.usefixtures("root")
def test_a_self_signed_certificate_is_a_note(tmp_path: Path) -> None:
    assert check(tmp_path, Server().write(tmp_path))["self_signed"].level is Level.NOTE


def test_certificates_in_the_wrong_order_are_found(root: Authority, tmp_path: Path) -> None:
    upper = Authority("Upper", root)
    lower = Authority("Lower", upper)
    tls = Server(issuer=lower).write(tmp_path, upper.certificate, lower.certificate)
    found = check(tmp_path, tls)["chain_order"]
    assert found.level is Level.WARNING
    assert "certificate 2 (CN=Upper)" in found.seen


def test_an_authority_of_the_same_name_with_another_key_is_found(root: Authority, tmp_path: Path) -> None:
    right, wrong = Authority("Below", root), Authority("Below", root)
    found = check(tmp_path, Server(issuer=right).write(tmp_path, wrong.certificate))
    assert found["chain_order"].level is Level.WARNING
    assert "certificate_chain" not in found


def test_a_certificate_for_clients_is_found(root: Authority, tmp_path: Path) -> None:
    tls = Server(issuer=root, purpose=ExtendedKeyUsageOID.CLIENT_AUTH).write(tmp_path)
    assert check(tmp_path, tls)["certificate_purpose"].level is Level.ERROR


def test_a_machine_that_trusts_nobody_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert check(tmp_path, Server(issuer=Authority()).write(tmp_path))["chain_unknown"].level is Level.NOTE


def test_whatever_else_openssl_refuses_is_an_error() -> None:
    chain = [Certificate("CN=a", "CN=b", 0, 0, (), False)]
    found = judge_trust(7, "certificate signature failure", chain, "tls.certificate")
    assert (found.level, found.code) == (Level.ERROR, "chain_broken")
    assert "certificate signature failure" in found.seen


# Dates


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("begins", "ends", "code", "level"),
    [
        (-100, -0.1, "certificate_ended", Level.ERROR),
        (0.1, 90, "certificate_not_yet_valid", Level.ERROR),
        (-80, 6.9, "certificate_ends_soon", Level.ERROR),
        (-80, 29.9, "certificate_ends_soon", Level.WARNING),
        (-80, 30.1, "certificate_dates", Level.OK),
        (-1, 5, "certificate_dates", Level.OK),  # made for six days, and not to be renewed yet
        (-4.5, 1.5, "certificate_ends_soon", Level.ERROR),
    ],
)
def test_dates_are_judged(tmp_path: Path, begins: float, ends: float, code: str, level: Level) -> None:
    found = check(tmp_path, Server(begins=begins, ends=ends).write(tmp_path))
    assert found[code].level is level
    assert ("certificate_dates" in found) == (level is Level.OK)


def test_an_authority_in_the_file_that_ends_is_found(root: Authority, tmp_path: Path) -> None:
    below = Authority("Below", root)  # for 90 days
    tls = Server(issuer=below).write(tmp_path, below.certificate)
    assert "CN=Below" in check(tmp_path, tls, ahead=89)["certificate_ends_soon"].seen


@pytest.mark.usefixtures("root")
def test_the_authority_of_clients_that_has_ended_is_found(tmp_path: Path) -> None:
    clients = tmp_path / "clients.pem"
    clients.write_bytes(Authority("Clients").certificate)
    tls = Server().write(tmp_path) | {"client_ca": str(clients), "client_auth": "required"}
    found = check(tmp_path, tls, ahead=91)["certificate_ended"]
    assert "tls.client_ca" in found.seen


# Names


@pytest.mark.usefixtures("root")
def test_a_certificate_without_names_is_found(tmp_path: Path) -> None:
    found = check(tmp_path, Server(names=()).write(tmp_path))
    assert found["certificate_without_names"].level is Level.ERROR


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("names", "address", "code", "level"),
    [
        (["192.0.2.7"], "192.0.2.7:8443", "certificate_names", Level.OK),
        (["chat.example.com"], "192.0.2.7:8443", "certificate_names_differ", Level.WARNING),
        (["chat.example.com"], "127.0.0.1:8443", "certificate_names_differ", Level.NOTE),
        (["*.example.com"], "chat.example.com:8443", "certificate_names", Level.OK),
        (["*.example.com"], "a.chat.example.com:8443", "certificate_names_differ", Level.WARNING),
        ([socket.gethostname()], "0.0.0.0:8443", "certificate_names", Level.OK),
        (["elsewhere.example.com"], "0.0.0.0:8443", "certificate_names_differ", Level.NOTE),
    ],
)
def test_names_are_compared_with_where_the_proxy_listens(
    tmp_path: Path, names: list[str], address: str, code: str, level: Level
) -> None:
    assert check(tmp_path, Server(names=names).write(tmp_path), address)[code].level is level


@pytest.mark.parametrize(
    ("names", "host", "covered"),
    [
        (("CHAT.example.com",), "chat.example.com", True),
        (("*.0.2.7",), "192.0.2.7", False),
        (("*.com",), "com", False),
        (("*.example.com",), "example.com", False),
        (("2001:db8::1",), "2001:0db8::1", True),
        (("localhost",), "localhost", True),
    ],
)
def test_a_wildcard_stands_for_one_label_and_no_address(
    names: tuple[str, ...], host: str, covered: bool
) -> None:
    server = Certificate("CN=a", "CN=a", 0, 0, names, True)
    (found,) = judge_names(server, host, (), ours=False)
    assert (found.code == "certificate_names") == covered


# Made by the proxy itself


def test_what_the_proxy_will_make_or_renew_by_itself_is_a_note(tmp_path: Path) -> None:
    found = check(tmp_path, {"mode": "self-signed"})
    assert found["certificate_missing"].level is Level.NOTE
    ensure_self_signed(tmp_path / "data" / "tls.crt", tmp_path / "data" / "tls.key", datetime.now(UTC))
    assert "certificate_names" in check(tmp_path, {"mode": "self-signed"})
    found = check(tmp_path, {"mode": "self-signed"}, ahead=390)
    assert found["certificate_ends_soon"].level is Level.NOTE


def test_without_tls_there_is_no_certificate(tmp_path: Path) -> None:
    assert check(tmp_path, {"mode": "off"})["tls_off"].level is Level.NOTE
