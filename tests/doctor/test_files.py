"""Files that others can read or change are found by their real modes and owners."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config import load
from proxy.doctor import files
from proxy.doctor.findings import Finding, Level
from proxy.store.schema import prepare

from ..certificates import ec_key, write_pair
from ..clients.programs import cannot_run
from .deployment import Deployment

NOBODY = 65534


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """Its upstream is a port where nothing answers."""
    certificate, key = write_pair(tmp_path, "tls", ec_key())
    token, secret = tmp_path / "token", tmp_path / "secret"
    token.write_text("canary-token-5d1f")
    secret.write_text("canary-secret-" + "9" * 60)
    issuer = {
        "issuer": "https://id.example.com",
        "audience": "proxy",
        "algorithms": ["HS256"],
        "secret_file": str(secret),
    }
    made = Deployment(
        tmp_path,
        "http://127.0.0.1:9",
        tls={"mode": "files", "certificate": str(certificate), "private_key": str(key)},
        ops={"token_file": str(token)},
        auth={"jwt": [issuer]},
    )
    prepare(made.store)
    for file in (key, token, secret):
        file.chmod(0o600)
    return made


def look(deployment: Deployment) -> dict[str, Finding]:
    """The findings of this check alone, by code."""
    config = load(deployment.write(), {})
    return {finding.code: finding for finding in files.check(config, deployment.file, None)}


def test_files_of_their_owner_alone_are_well(deployment: Deployment) -> None:
    found = deployment.walk()
    assert found["file_modes"].level is Level.OK
    assert not any(code.startswith("file_") and code != "file_modes" for code in found)


@pytest.mark.parametrize("name", ["tls.key", "token", "secret", "data/keys.db"])
@pytest.mark.parametrize(
    ("mode", "code", "level"),
    [
        (0o604, "file_readable_by_others", Level.ERROR),
        (0o640, "file_readable_by_group", Level.NOTE),
        (0o602, "file_writable_by_others", Level.ERROR),
        (0o620, "file_writable_by_group", Level.WARNING),
    ],
)
def test_a_secret_that_others_reach_is_found(
    deployment: Deployment, name: str, mode: int, code: str, level: Level
) -> None:
    (deployment.folder / name).chmod(mode)
    found = look(deployment)
    assert found[code].level is level
    assert name in found[code].seen
    assert f"{mode:04o}" in found[code].seen
    assert str(deployment.folder / name) in found[code].mend
    assert "file_modes" not in found


@pytest.mark.parametrize("name", ["tls.crt", "data"])
def test_what_is_no_secret_may_be_read_and_not_changed(deployment: Deployment, name: str) -> None:
    (deployment.folder / name).chmod(0o755)
    assert "file_modes" in look(deployment)
    (deployment.folder / name).chmod(0o757)
    found = look(deployment)["file_writable_by_others"]
    assert (found.level, name in found.seen) == (Level.ERROR, True)


def test_a_file_of_somebody_else_is_found(deployment: Deployment) -> None:
    if os.geteuid() != 0:
        cannot_run("only root can give files away")
    key = deployment.folder / "tls.key"
    os.chown(key, NOBODY, -1)
    found = look(deployment)["file_of_another_user"]
    assert found.level is Level.WARNING
    assert str(key) in found.seen
    assert str(key) in found.mend


def test_who_asks_as_root_is_told_that_the_user_of_the_proxy_is_not_known(deployment: Deployment) -> None:
    found = look(deployment)
    assert ("user_unknown" in found) == (os.geteuid() == 0)
    if "user_unknown" in found:
        assert found["user_unknown"].level is Level.NOTE


def test_no_finding_repeats_a_secret(deployment: Deployment) -> None:
    for name in ("tls.key", "token", "secret", "data/keys.db"):
        (deployment.folder / name).chmod(0o666)
    text = repr(deployment.walk())
    assert "file_readable_by_others" in text
    assert "canary" not in text
