"""Issuers of JWTs that cannot be asked, have no key for us, or have another time than we."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from proxy.doctor.findings import Level
from proxy.doctor.issuers import judge_clock

from ..identity.issuer_server import KEYS, Answer, IssuerServer, issuer_server
from ..identity.tokens import issuer, jwks, signer
from .deployment import Deployment

OURS = signer()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[IssuerServer]:
    with issuer_server(tmp_path) as server:
        server.publish(OURS)
        server.describe()
        yield server


@pytest.fixture(params=["jwks_url", "discovery"])
def deployment(server: IssuerServer, tmp_path: Path, request: pytest.FixtureRequest) -> Deployment:
    table = {"issuer": server.url, "audience": "proxy", "ca_file": str(server.ca_file)}
    table |= {"jwks_url": server.url + KEYS} if request.param == "jwks_url" else {"discovery": True}
    return Deployment(tmp_path, "http://127.0.0.1:9", tls={"mode": "off"}, auth={"jwt": [table]})


def test_an_issuer_that_is_well_is_well(deployment: Deployment) -> None:
    found = deployment.walk()
    assert [found[code].level for code in ("issuer_keys", "clock")] == [Level.OK] * 2
    assert found["no_keys"].level is Level.NOTE  # people have tokens


def test_an_issuer_that_is_not_there_is_found(deployment: Deployment, server: IssuerServer) -> None:
    server.stop()
    found = deployment.walk()
    assert found["issuer_unreachable"].level is Level.ERROR
    assert server.url in found["issuer_unreachable"].seen
    assert found["clock_unknown"].level is Level.NOTE


def test_an_issuer_whose_certificate_is_not_trusted_is_found(deployment: Deployment) -> None:
    del deployment.tables["auth"]["jwt"][0]["ca_file"]
    assert "ca_file" in deployment.walk()["issuer_unreachable"].seen


def test_an_issuer_without_a_key_for_us_is_found(deployment: Deployment, server: IssuerServer) -> None:
    server.publish(signer("ES256"))
    found = deployment.walk()["issuer_without_keys"]
    assert (found.level, "RS256" in found.seen) == (Level.ERROR, True)


def test_keys_that_are_not_used_are_told(deployment: Deployment, server: IssuerServer) -> None:
    server.answers[KEYS] = Answer(jwks(OURS.jwk(), {"kty": "oct", "kid": "x", "k": "AAAA"}))
    assert deployment.walk()["issuer_keys_dropped"].level is Level.NOTE


@pytest.mark.parametrize(
    ("date", "way"),
    [("Thu, 01 Jan 2026 00:00:00 GMT", "ahead of"), ("Fri, 01 Jan 2077 00:00:00 GMT", "behind")],
)
def test_a_clock_that_is_wrong_is_found(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, date: str, way: str
) -> None:
    monkeypatch.setattr(BaseHTTPRequestHandler, "date_time_string", lambda *_: date)
    found = deployment.walk()["clock_wrong"]
    assert (found.level, way in found.seen) == (Level.ERROR, True)
    assert "set-ntp" in found.mend


def test_a_time_that_is_none_is_not_called_right(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseHTTPRequestHandler, "date_time_string", lambda *_: "yesterday")
    assert deployment.walk()["clock_unknown"].level is Level.NOTE


@pytest.mark.parametrize(
    ("difference", "code"),
    [
        (0.0, "clock"),
        (-16.0, "clock"),
        (16.5, "clock_drifts"),
        (-31.0, "clock_drifts"),
        (31.5, "clock_wrong"),
        (-1e9, "clock_wrong"),
        (None, "clock_unknown"),
    ],
)
def test_a_difference_is_judged_by_the_leeway_of_30_s(difference: float | None, code: str) -> None:
    assert judge_clock(difference, issuer(leeway=30.0)).code == code


def test_without_leeway_a_second_is_what_a_date_cannot_tell() -> None:
    assert judge_clock(1.0, issuer(leeway=0.0)).code == "clock"
    assert judge_clock(1.1, issuer(leeway=0.0)).code == "clock_wrong"
