from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from proxy.identity.api_keys import ApiKey, Secret, digest, issue, reissue
from proxy.store.errors import StoreError
from proxy.store.follow import follow, load
from proxy.store.keys import open_store
from proxy.store.last_used import write_last_used
from proxy.store.rows import keys_from_rows
from proxy.store.schema import prepare

NOW = 1_800_000_000
BOUND = 2.0  # seconds; what users are promised


class Follower:
    """A follower at work, with everything it has handed on so far."""

    def __init__(self) -> None:
        self.keys: list[Mapping[str, ApiKey]] = []
        self.faults: list[StoreError | None] = []

    def names(self) -> set[str]:
        return {key.name for key in self.keys[-1].values()} if self.keys else set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Fails when the condition has not come true within the bound."""
        async with asyncio.timeout(BOUND):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def following(database: Path, interval: float = 0.5) -> AsyncIterator[Follower]:
    follower = Follower()
    task = asyncio.create_task(follow(database, follower.keys.append, follower.faults.append, interval))
    try:
        yield follower
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


def create(database: Path, *names: str) -> list[ApiKey]:
    async def create_all() -> list[ApiKey]:
        store = open_store(database)
        keys = [issue(name, NOW)[1] for name in names]
        for key in keys:
            await store.create(key)
        return keys

    return asyncio.run(create_all())


def execute(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def in_another_process(program: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True)


def backup(database: Path, target: Path) -> Path:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    return target


def remove_logs(database: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def test_the_keys_are_handed_on_at_once(database):
    (key,) = create(database, "laptop")

    async def check() -> None:
        async with following(database, interval=60) as follower:
            await follower.until(lambda: follower.keys == [{key.id: key}])
            assert follower.faults == []

    asyncio.run(check())


WRITER = """
import asyncio, sys
from pathlib import Path
from proxy.identity.api_keys import issue
from proxy.store.keys import open_store
store = open_store(Path(sys.argv[1]))
asyncio.run(store.create(issue(sys.argv[2], 1)[1]))
"""
REVOKER = """
import asyncio, sys
from pathlib import Path
from proxy.store.keys import open_store
store = open_store(Path(sys.argv[1]))
asyncio.run(store.revoke(sys.argv[2], 1))
"""


def test_what_another_process_creates_and_revokes_is_seen_within_two_seconds(database):
    (old,) = create(database, "old")

    async def check() -> None:
        async with following(database) as follower:
            await follower.until(lambda: follower.names() == {"old"})
            for number in range(3):
                await asyncio.to_thread(in_another_process, WRITER, database, f"new {number}")
                await follower.until(lambda number=number: f"new {number}" in follower.names())
            await asyncio.to_thread(in_another_process, REVOKER, database, old.id)
            await follower.until(lambda: follower.names() == {"new 0", "new 1", "new 2"})

    asyncio.run(check())


def test_every_one_of_many_changes_arrives(database):
    prepare(database)

    async def check() -> None:
        async with following(database, interval=0.01) as follower:
            for number in range(30):
                await asyncio.to_thread(create, database, str(number))
            await follower.until(lambda: len(follower.names()) == 30)

    asyncio.run(check())


def test_a_change_that_changes_no_key_is_not_handed_on(database):
    create(database, "laptop")

    async def check() -> None:
        async with following(database, interval=0.01) as follower:
            await follower.until(lambda: follower.names() == {"laptop"})
            for _ in range(5):
                execute(database, "UPDATE keys SET name = name")
                await asyncio.sleep(0.03)
            assert len(follower.keys) == 1

    asyncio.run(check())


def test_that_a_key_was_used_is_not_handed_on_and_makes_no_work(database, monkeypatch):
    (key,) = create(database, "laptop")
    made = []

    def counted(rows):
        made.append(rows)
        return keys_from_rows(rows)

    monkeypatch.setattr("proxy.store.follow.keys_from_rows", counted)

    async def check() -> None:
        async with following(database, interval=0.01) as follower:
            await follower.until(lambda: follower.names() == {"laptop"})
            for second in range(5):
                await write_last_used(database, {key.id: NOW + second})
                await asyncio.sleep(0.05)
            assert (len(follower.keys), len(made)) == (1, 1)
            await asyncio.to_thread(create, database, "phone")
            await follower.until(lambda: follower.names() == {"laptop", "phone"})
            assert (len(follower.keys), len(made)) == (2, 2)

    asyncio.run(check())


ROTATOR = """
import asyncio, sys
from pathlib import Path
from proxy.store.keys import open_store
store = open_store(Path(sys.argv[1]))
asyncio.run(store.rotate(sys.argv[2], bytes.fromhex(sys.argv[3]), int(sys.argv[4]), 60))
"""
CHANGER = """
import asyncio, sys
from pathlib import Path
from proxy.store.keys import open_store
store = open_store(Path(sys.argv[1]))
asyncio.run(store.change(sys.argv[2], models=["llama3.2"], limits={"max_context": 4096}))
"""


def test_what_another_process_rotates_and_changes_is_seen_within_two_seconds(database):
    (key,) = create(database, "laptop")
    (old,) = key.secrets
    new = digest(reissue(key.id).encode())

    async def check() -> None:
        async with following(database) as follower:
            await follower.until(lambda: follower.names() == {"laptop"})
            await asyncio.to_thread(in_another_process, ROTATOR, database, key.id, new.hex(), NOW)
            both = {Secret(old.digest, NOW + 60), Secret(new)}
            await follower.until(lambda: set(follower.keys[-1][key.id].secrets) == both)
            await asyncio.to_thread(in_another_process, CHANGER, database, key.id)
            await follower.until(lambda: follower.keys[-1][key.id].models == ("llama3.2",))
            assert follower.keys[-1][key.id].limits == {"max_context": 4096}
            assert len(follower.keys) == 3

    asyncio.run(check())


def test_keys_stay_known_while_the_store_cannot_be_read_and_it_says_when_that_ends(database):
    create(database, "laptop")

    async def check() -> None:
        async with following(database, interval=0.02) as follower:
            await follower.until(lambda: follower.names() == {"laptop"})
            execute(database, "ALTER TABLE keys RENAME TO lost")
            await follower.until(lambda: follower.faults != [])
            await asyncio.sleep(0.2)
            assert [str(fault) for fault in follower.faults] == [
                f"the key store {database} cannot be used: no such table: keys"
            ]
            assert len(follower.keys) == 1
            execute(database, "ALTER TABLE lost RENAME TO keys")
            await follower.until(lambda: follower.faults[1:] == [None])
            await asyncio.to_thread(create, database, "phone")
            await follower.until(lambda: follower.names() == {"laptop", "phone"})

    asyncio.run(check())


def test_a_file_that_is_gone_is_reported_and_followed_again_when_it_is_back(database, tmp_path):
    create(database, "laptop")
    saved = backup(database, tmp_path / "backup.db")

    async def check() -> None:
        async with following(database, interval=0.02) as follower:
            await follower.until(lambda: follower.names() == {"laptop"})
            database.unlink()
            remove_logs(database)
            await follower.until(lambda: len(follower.faults) == 1)
            assert "cannot be opened: it and its directory must exist" in str(follower.faults[0])
            assert follower.names() == {"laptop"}
            os.replace(saved, database)
            await follower.until(lambda: follower.faults[1:] == [None])
            await asyncio.to_thread(create, database, "phone")
            await follower.until(lambda: follower.names() == {"laptop", "phone"})

    asyncio.run(check())


def _by_renaming(saved: Path, database: Path) -> None:
    remove_logs(database)
    os.replace(saved, database)


def _by_copying_in_place(saved: Path, database: Path) -> None:
    remove_logs(database)
    shutil.copyfile(saved, database)


def _by_sqlite(saved: Path, database: Path) -> None:
    backup(saved, database)


@pytest.mark.parametrize("restore", [_by_renaming, _by_copying_in_place, _by_sqlite])
def test_a_restored_backup_is_followed(database, tmp_path, restore):
    create(database, "in the backup")
    saved = backup(database, tmp_path / "backup.db")
    create(database, "too late")

    async def check() -> None:
        async with following(database) as follower:
            await follower.until(lambda: follower.names() == {"in the backup", "too late"})
            restore(saved, database)
            await follower.until(lambda: follower.names() == {"in the backup"})
            await asyncio.to_thread(create, database, "after it")
            await follower.until(lambda: follower.names() == {"in the backup", "after it"})

    asyncio.run(check())


KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("UPDATE keys SET name = 'committed'")
connection.execute("BEGIN")
connection.execute("UPDATE keys SET name = 'not committed'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_that_was_killed_leaves_what_it_committed(database):
    create(database, "laptop")
    killed = subprocess.run([sys.executable, "-c", KILLED, database])
    assert killed.returncode == -signal.SIGKILL
    assert Path(f"{database}-wal").stat().st_size > 0
    assert [key.name for key in asyncio.run(load(database)).values()] == ["committed"]


def test_a_writer_at_work_does_not_hold_up_the_follower(database):
    create(database, "laptop")
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("UPDATE keys SET name = 'not committed'")
        started = time.monotonic()
        assert [key.name for key in asyncio.run(load(database)).values()] == ["laptop"]
        assert time.monotonic() - started < 0.5


SENSELESS = [
    *(("scopes", "'read'"), ("scopes", "'7'"), ("scopes", "'{\"read\": 1}'"), ("scopes", "'[[\"read\"]]'")),
    *(
        ("scopes", "'\"read\"'"),
        ("scopes", "x'5b5d'"),
        ("scopes", "CAST(x'5bff5d' AS TEXT)"),
        ("scopes", "7"),
    ),
    *(("scopes", f"'{'[' * 100_000}'"), ("limits", "'{'"), ("limits", "'[]'"), ("models", "'[1'")),
    *(("name", "CAST(x'ff' AS TEXT)"), ("name", "'a' || char(10)"), ("kind", "x'00'"), ("cloud", "'no'")),
    *(("created", "'soon'"), ("expires", "'never'"), ("expires", "1.5"), ("expires", f"{10**15}")),
    *(("limits", f"'{limits}'") for limits in ('{"max_context": 0}', '{"max_context": 1.5}', '{"cores": 1}')),
    *(("models", f"'{models}'") for models in ('[""]', '["a b"]', '["a\\u001b"]', '"llama3.2"', "{}")),
    ("scopes", "'[\"read\\n\"]'"),
]


@pytest.mark.parametrize(("column", "value"), SENSELESS, ids=[column for column, _ in SENSELESS])
def test_a_row_that_makes_no_sense_is_a_fault_and_not_a_grant(database, column, value):
    bad, good = create(database, "bad", "good")
    execute(database, f"UPDATE keys SET {column} = {value} WHERE id = '{bad.id}'")
    assert asyncio.run(load(database)) == {good.id: good}

    async def check() -> None:
        async with following(database) as follower:
            await follower.until(lambda: follower.faults != [])
            assert follower.keys == [{good.id: good}]
            told = f"the stored key {bad.id} cannot be read: revoke it and create another"
            assert [str(fault) for fault in follower.faults] == [told]
            assert all(isinstance(fault, StoreError) for fault in follower.faults)

    asyncio.run(check())


@pytest.mark.parametrize("digest", ["'text'", "32", "x'00'"])
def test_a_secret_that_makes_no_sense_is_a_fault_and_not_a_grant(database, digest):
    bad, good = create(database, "bad", "good")
    execute(database, f"UPDATE key_secrets SET digest = {digest} WHERE key_id = '{bad.id}'")
    assert asyncio.run(load(database)) == {good.id: good}


@pytest.mark.parametrize("end", ["'never'", "-1", "1.5", f"{10**15}"])
def test_a_secret_whose_end_makes_no_sense_is_a_fault_and_not_a_grant(database, end):
    bad, good = create(database, "bad", "good")
    execute(database, f"UPDATE key_secrets SET expires = {end} WHERE key_id = '{bad.id}'")
    assert asyncio.run(load(database)) == {good.id: good}


def test_a_key_is_revoked_while_another_cannot_be_read_and_it_says_when_that_ends(database):
    revoked, bad, _ = create(database, "revoked", "bad", "good")

    async def check() -> None:
        async with following(database, interval=0.02) as follower:
            await follower.until(lambda: follower.names() == {"revoked", "bad", "good"})
            execute(database, f"UPDATE keys SET scopes = '[' WHERE id = '{bad.id}'")
            await follower.until(lambda: follower.names() == {"revoked", "good"})
            await asyncio.to_thread(in_another_process, REVOKER, database, revoked.id)
            await follower.until(lambda: follower.names() == {"good"})
            assert [bad.id in str(fault) for fault in follower.faults] == [True]
            await asyncio.to_thread(in_another_process, REVOKER, database, bad.id)
            await follower.until(lambda: follower.faults[1:] == [None])
            assert follower.names() == {"good"}

    asyncio.run(check())


def test_all_keys_that_cannot_be_read_are_named(database):
    first, _, last = create(database, "a", "b", "c")
    execute(database, "UPDATE keys SET scopes = '[' WHERE name <> 'b'")

    async def check() -> None:
        async with following(database) as follower:
            await follower.until(lambda: follower.faults != [])
            told = f"the stored keys {first.id}, {last.id} cannot be read: revoke them and create others"
            assert [str(fault) for fault in follower.faults] == [told]

    asyncio.run(check())


def test_a_store_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened: it and its directory must exist"):
        asyncio.run(load(tmp_path / "keys.db"))


def test_following_changes_nothing_in_the_database(database):
    create(database, "laptop")
    before = database.read_bytes()

    async def check() -> None:
        async with following(database, interval=0.01) as follower:
            await follower.until(lambda: follower.names() == {"laptop"})
            await asyncio.sleep(0.1)

    asyncio.run(check())
    assert database.read_bytes() == before


def test_looking_for_changes_costs_almost_nothing(database):
    create(database, *map(str, range(20)))

    async def check() -> None:
        async with following(database, interval=0.005) as follower:
            await follower.until(lambda: len(follower.names()) == 20)
            began, spent = time.monotonic(), time.process_time()
            await asyncio.sleep(1)
            looks = (time.monotonic() - began) / 0.005
            assert (time.process_time() - spent) / looks < 0.001  # at two a second: 0.2 % of a core

    asyncio.run(check())


def test_a_follower_that_is_cancelled_leaves_no_thread(database, threads):
    create(database, "laptop")
    before = threads()
    begun: set[threading.Thread] = set()

    async def check() -> None:
        async with following(database) as follower:
            await follower.until(lambda: follower.names() == {"laptop"})
            begun.update(threads() - before)

    asyncio.run(check())
    (thread,) = begun
    thread.join(BOUND)  # it has ended its work; the system may not have ended the thread
    assert not thread.is_alive()
