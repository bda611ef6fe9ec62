"""The store: whether it can be written, whether it is ours and whole, and what is left of the disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.doctor import keys, store
from proxy.doctor.findings import Level
from proxy.doctor.store import LITTLE, VERY_LITTLE, Seen
from proxy.doctor.walk import read
from proxy.identity.api_keys import ApiKey, issue
from proxy.store.keys import open_store
from proxy.store.schema import HEAD, prepare

from ..clients.programs import cannot_run
from .deployment import Deployment

NOW = 1_800_000_000
DAY = 86400


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    deployment = Deployment(tmp_path, "http://127.0.0.1:9", tls={"mode": "off"})
    prepare(deployment.store)
    return deployment


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_store_that_is_well_stays_as_it_was_to_the_byte(deployment: Deployment) -> None:
    before = contents(deployment.store.parent)
    found = deployment.walk()
    assert found["store_writable"].level is Level.OK
    assert HEAD in found["store_writable"].seen
    assert contents(deployment.store.parent) == before


def test_a_store_that_is_not_there_stays_so(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, "http://127.0.0.1:9", tls={"mode": "off"})
    found = deployment.walk()
    assert found["store_missing"].level is Level.NOTE
    assert found["no_keys"].level is Level.WARNING
    assert not deployment.store.parent.exists()


def test_an_old_schema_is_a_note_and_is_not_migrated(deployment: Deployment) -> None:
    execute(deployment.store, "UPDATE alembic_version SET version_num = '0001'")
    before = contents(deployment.store.parent)
    found = deployment.walk()
    assert found["store_not_migrated"].level is Level.NOTE
    assert "0001" in found["store_not_migrated"].seen
    assert contents(deployment.store.parent) == before


def test_an_empty_file_is_migrated_by_the_next_start(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, "http://127.0.0.1:9", tls={"mode": "off"})
    deployment.store.parent.mkdir()
    deployment.store.touch(0o600)
    assert "schema none" in deployment.walk()["store_not_migrated"].seen


def test_the_store_of_a_newer_version_is_found(deployment: Deployment) -> None:
    execute(deployment.store, "UPDATE alembic_version SET version_num = '9999'")
    found = deployment.walk()["store_of_newer_version"]
    assert (found.level, "upgrade" in found.mend) == (Level.ERROR, True)


def test_the_database_of_another_program_is_found(deployment: Deployment) -> None:
    deployment.store.unlink()
    execute(deployment.store, "CREATE TABLE bookmarks (url TEXT)")
    found = deployment.walk()["store_fault"]
    assert (found.level, found.mend) == (Level.ERROR, "give the store a file of its own")


def test_a_file_that_is_no_database_is_found(deployment: Deployment) -> None:
    deployment.store.write_bytes(b"these are not the pages of a database" * 100)
    found = deployment.walk()["store_fault"]
    assert "not an SQLite database" in found.seen
    assert found.mend


def test_a_store_that_another_program_holds_is_found(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    with closing(sqlite3.connect(deployment.store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = deployment.walk()["store_fault"]
    assert (found.level, "locked" in found.seen) == (Level.ERROR, True)


def test_a_damaged_store_is_found(deployment: Deployment) -> None:
    """A page of a table is overwritten, as a failing disk or a careless copy does it."""
    with closing(sqlite3.connect(deployment.store)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'keys'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with deployment.store.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))
    found = deployment.walk()
    damage = found.get("store_damaged") or found["store_fault"]
    assert (damage.level, "backup" in damage.mend) == (Level.ERROR, True)
    assert "store_writable" not in found


def test_a_store_that_is_too_large_to_check_is_not_called_whole(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        deployment.store,
        "INSERT INTO usage WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)"
        " SELECT i, '', 'k', 'm', 'r', 1, 1, 1, 1.0 FROM n",
    )
    monkeypatch.setattr(store, "PATIENCE", 0.0)
    assert deployment.walk()["store_check_too_long"].level is Level.NOTE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        # Not even CI may mount everywhere; the table below judges the same numbers.
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_nearly_full_is_found(deployment: Deployment, small_disk: Path) -> None:
    deployment.tables["store"]["url"] = f"sqlite:///{small_disk}/keys.db"
    found = deployment.walk()["disk_full"]
    assert found.level is Level.ERROR
    assert "MiB are left" in found.seen


@pytest.mark.parametrize(
    ("free", "code", "level"),
    [
        (VERY_LITTLE - 1, "disk_full", Level.ERROR),
        (VERY_LITTLE, "disk_full", Level.WARNING),
        (LITTLE - 1, "disk_full", Level.WARNING),
        (None, "disk_unknown", Level.NOTE),
    ],
)
def test_room_on_the_disk_is_judged(free: int | None, code: str, level: Level) -> None:
    found, *_ = store.judge(Seen(False, free), Path("keys.db"))
    assert (found.code, found.level) == (code, level)


# Keys


def key(name: str, expires: float | None = None, revoked: float | None = None) -> ApiKey:
    return replace(issue(name, NOW - DAY)[1], expires=expires, revoked=revoked)


@pytest.mark.parametrize(
    ("stored", "codes"),
    [
        ([], {"no_keys": Level.WARNING}),
        ([key("a")], {"keys": Level.OK}),
        ([key("a", revoked=NOW)], {"keys_revoked": Level.WARNING}),
        ([key("a", expires=NOW)], {"keys_ended": Level.WARNING}),
        ([key("a", expires=NOW), key("b", revoked=NOW)], {"keys_ended": Level.WARNING}),
        ([key("a", expires=NOW + 7 * DAY)], {"keys": Level.OK, "keys_end_soon": Level.WARNING}),
        ([key("a", expires=NOW + 7 * DAY + 1)], {"keys": Level.OK}),
        ([key("a", expires=NOW + DAY, revoked=NOW), key("b")], {"keys": Level.OK}),
    ],
)
def test_keys_are_judged(stored: list[ApiKey], codes: dict[str, Level]) -> None:
    assert {one.code: one.level for one in keys.judge(stored, [], NOW, others=False)} == codes


def test_where_people_have_other_credentials_no_keys_are_a_note() -> None:
    (found,) = keys.judge([], [], NOW, others=True)
    assert (found.code, found.level) == ("no_keys", Level.NOTE)


def test_keys_of_the_store_are_seen_as_they_are(deployment: Deployment) -> None:
    now = int(time.time())

    async def fill() -> None:
        opened = open_store(deployment.store)
        _, revoked = issue("old", now)
        await opened.create(revoked)
        await opened.revoke(revoked.id, now)
        await opened.create(issue("ending", now - DAY, expires=now + DAY)[1])
        await opened.create(issue("ended", now - DAY, expires=now - 1)[1])
        await opened.close()

    asyncio.run(fill())
    found = deployment.walk()
    assert found["keys"].seen.startswith("1 of 3")
    assert "ending (" in found["keys_end_soon"].seen
    assert "keys set" in found["keys_end_soon"].mend


def test_keys_that_cannot_be_read_are_found(deployment: Deployment) -> None:
    _, stored = issue("laptop", int(time.time()))
    asyncio.run(open_store(deployment.store).create(stored))
    execute(deployment.store, "UPDATE keys SET scopes = 'nonsense'")
    found = deployment.walk()["keys_unreadable"]
    assert (found.level, stored.id in found.seen) == (Level.ERROR, True)


def test_without_keys_in_use_none_are_missed(deployment: Deployment) -> None:
    deployment.tables["auth"] = {"api_keys": False, "ssh_signatures": False}
    assert "no_keys" not in deployment.walk()


def test_a_file_system_that_cannot_be_written_is_a_fault_of_the_configuration(
    small_disk: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        cannot_run("only root mounts")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    deployment = Deployment(tmp_path, "http://127.0.0.1:9", store={"url": f"sqlite:///{small_disk}/keys.db"})
    found = read(deployment.write(), {})
    assert isinstance(found, list)
    assert found[0].code == "config_invalid"
    assert "cannot be written" in found[0].seen
