"""Times of last use, as a running proxy writes them: behind, all at once, and never backwards."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from proxy.identity.api_keys import issue
from proxy.store.errors import StoreError
from proxy.store.keys import open_store
from proxy.store.last_used import write_last_used
from proxy.store.schema import prepare

NOW = 1_800_000_000


def create(database: Path, *names: str) -> list[str]:
    async def create_all() -> list[str]:
        store = open_store(database)
        keys = [issue(name, NOW)[1] for name in names]
        for key in keys:
            await store.create(key)
        return [key.id for key in keys]

    return asyncio.run(create_all())


def write(database: Path, used: Mapping[str, float]) -> None:
    asyncio.run(write_last_used(database, used))


def stored(database: Path) -> dict[str, int | None]:
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute("SELECT id, last_used FROM keys"))


def test_the_times_are_there_for_the_commands_in_whole_seconds(database):
    used, unused = create(database, "used", "unused")
    write(database, {used: NOW + 0.9})
    assert stored(database) == {used: NOW, unused: None}
    keys = asyncio.run(open_store(database).list())
    assert {key.id: key.last_used for key in keys} == {used: NOW, unused: None}


def test_no_time_moves_backwards(database):
    first, second = create(database, "first", "second")
    write(database, {first: NOW, second: NOW})
    write(database, {first: NOW - 1, second: NOW + 1})
    assert stored(database) == {first: NOW, second: NOW + 1}


def test_ids_that_no_key_has_are_passed_over(database):
    (key,) = create(database, "laptop")
    write(database, {"nosuchkey0": NOW, key: NOW, "' OR 1=1 --": NOW + 1, "": NOW})
    assert stored(database) == {key: NOW}


def test_many_times_are_written_in_one_go(database):
    ids = create(database, *map(str, range(50)))
    write(database, {key: NOW + number for number, key in enumerate(ids)})
    assert stored(database) == {key: NOW + number for number, key in enumerate(ids)}


def test_all_are_written_or_none(database):
    first, second = create(database, "first", "second")
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER fails BEFORE UPDATE ON keys WHEN NEW.name = 'second' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(StoreError, match="cannot be used: no"):
        write(database, {first: NOW, second: NOW})
    assert stored(database) == {first: None, second: None}


def test_proxies_that_write_at_once_do_not_hinder_each_other(database):
    ids = create(database, *map(str, range(10)))

    async def write_all() -> None:
        await asyncio.gather(*(write_last_used(database, dict.fromkeys(ids, NOW + n)) for n in range(8)))

    asyncio.run(write_all())
    assert stored(database) == dict.fromkeys(ids, NOW + 7)


def test_nothing_to_write_is_not_worth_a_look_at_the_file(tmp_path):
    write(tmp_path / "keys.db", {})
    assert not (tmp_path / "keys.db").exists()


def test_a_store_that_is_not_there_is_explained_and_not_made(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened: it and its directory must exist"):
        write(tmp_path / "keys.db", {"0000000000": NOW})
    assert not (tmp_path / "keys.db").exists()


def test_a_store_that_is_none_is_explained(tmp_path):
    (tmp_path / "keys.db").write_text("no database\n" * 100)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        write(tmp_path / "keys.db", {"0000000000": NOW})


def test_a_store_that_stays_locked_is_explained_and_what_waits_can_be_written_later(database, monkeypatch):
    monkeypatch.setattr("proxy.store.last_used.BUSY_TIMEOUT", 0.2)
    (key,) = create(database, "laptop")
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another process"):
            write(database, {key: NOW})
    write(database, {key: NOW})
    assert stored(database) == {key: NOW}


def test_a_writer_that_keeps_others_waiting_does_not_stop_the_loop(database, longest_turn):
    (key,) = create(database, "laptop")

    async def check() -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(write_last_used(database, {key: NOW}))
            longest = await longest_turn()
            assert not task.done()
            connection.execute("ROLLBACK")
            await task
            assert longest < 0.25

    asyncio.run(check())
    assert stored(database) == {key: NOW}


def test_no_thread_is_left(database, threads):
    (key,) = create(database, "laptop")
    before = threads()
    write(database, {key: NOW})
    for thread in threads() - before:
        thread.join(2)
        assert not thread.is_alive()


def test_a_running_proxy_needs_no_sqlalchemy_for_it(database):
    prepare(database)
    program = (
        "import asyncio, sys; from pathlib import Path; from proxy.store.last_used import write_last_used; "
        "asyncio.run(write_last_used(Path(sys.argv[1]), {'0000000000': 1})); "
        "print(sorted({'alembic', 'sqlalchemy', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, database], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
