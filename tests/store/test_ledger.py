"""Usage in the store: each batch is there once, whatever happens to its writer, and old hours go."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine

from proxy.identity.api_keys import issue
from proxy.observe.ledger import Batch, Row
from proxy.store.errors import StoreError
from proxy.store.follow import load
from proxy.store.keys import open_store
from proxy.store.ledger import SLICE, prune, write
from proxy.store.migrate import alembic_config
from proxy.store.schema import HEAD, prepare, revision

HOUR = 1_800_000_000
ROW = Row(HOUR, "4fTz81LmQx", "laptop", "m:latest", "/api/chat", 2, 10, 20, 0.5)


@pytest.fixture
def store(database: Path) -> Path:
    prepare(database)
    return database


def batch(*rows: Row, number: int = 1, writer: str = "a") -> Batch:
    return Batch(writer, number, rows)


def put(store: Path, *batches: Batch) -> None:
    async def put_all() -> None:
        for one in batches:
            await write(store, one)

    asyncio.run(put_all())


def stored(store: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute("SELECT * FROM usage ORDER BY 1, 2, 3, 4, 5").fetchall()


def execute(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def locked(store: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


def test_what_was_used_adds_up(store):
    put(store, batch(ROW), batch(ROW._replace(requests=1, input_tokens=5, seconds=1.25), number=2))
    assert stored(store) == [(*ROW[:5], 3, 15, 40, 1.75)]


def test_hour_key_name_model_and_route_are_told_apart(store):
    others = [
        {"hour": HOUR + 3600},
        {"key_id": "other00000"},
        {"key_name": "desk"},
        {"model": "n:latest"},
        {"route": "/api/generate"},
    ]
    put(store, batch(ROW, *(ROW._replace(**other) for other in others)))
    assert len(stored(store)) == 6


def test_callers_without_a_key_and_requests_without_a_model_add_up_too(store):
    nobody = ROW._replace(key_id=None, key_name="jwt", model=None)
    put(store, batch(nobody), batch(nobody, number=2))
    assert stored(store) == [(HOUR, "", "jwt", "", "/api/chat", 4, 20, 40, 1.0)]


def test_the_same_row_twice_in_a_batch_adds_up(store):
    put(store, batch(ROW, ROW))
    assert stored(store) == [(*ROW[:5], 4, 20, 40, 1.0)]


def test_a_batch_that_is_there_already_is_not_counted_again(store):
    put(store, batch(ROW), batch(ROW), batch(ROW, number=2), batch(ROW), batch(ROW, number=2))
    assert stored(store) == [(*ROW[:5], 4, 20, 40, 1.0)]


def test_a_batch_is_written_whole_or_not_at_all_and_can_be_written_again(store):
    execute(
        store,
        "CREATE TRIGGER fails BEFORE INSERT ON usage WHEN NEW.model = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    whole = batch(ROW, ROW._replace(model="bad"), ROW._replace(model="n"))
    with pytest.raises(StoreError, match="cannot be used: no"):
        put(store, whole)
    assert stored(store) == []
    execute(store, "DROP TRIGGER fails")
    put(store, whole)
    assert [row[5] for row in stored(store)] == [2, 2, 2]


def test_a_writer_that_is_cancelled_anywhere_has_its_batch_in_the_store_once(store):
    """Each batch is cancelled a little later than the one before, from its beginning to its end."""
    there, missing = 0, 0

    async def run() -> None:
        nonlocal there, missing
        for number in range(1, 61):
            one = batch(ROW._replace(hour=HOUR + number * 3600), number=number)
            task = asyncio.create_task(write(store, one))
            await asyncio.sleep(number * 0.0002)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled() and any(row[0] == one.rows[0].hour for row in stored(store)):
                there += 1
            elif task.cancelled():
                missing += 1
            await write(store, one)

    asyncio.run(run())
    assert [row[5:8] for row in stored(store)] == [(2, 10, 20)] * 60
    assert there + missing > 0


def test_a_commit_whose_answer_was_lost_is_not_counted_again(store, monkeypatch):
    import aiosqlite

    commit = aiosqlite.Connection.commit

    async def lost(connection: aiosqlite.Connection) -> None:
        await commit(connection)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(aiosqlite.Connection, "commit", lost)
    with pytest.raises(StoreError, match="disk I/O error"):
        put(store, batch(ROW))
    monkeypatch.undo()
    assert stored(store) == [tuple(ROW)]
    put(store, batch(ROW), batch(ROW, number=2))
    assert stored(store) == [(*ROW[:5], 4, 20, 40, 1.0)]


def test_a_writer_that_is_killed_leaves_its_batch_whole_or_not_at_all(store):
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from proxy.observe.ledger import Batch, Row\nfrom proxy.store.ledger import write\n"
        "async def run():\n"
        "  number = 0\n"
        "  while True:\n"
        "    number += 1\n"
        "    rows = tuple(Row(0, 'k', 'k', f'm{n}', 'r', 1, 1, 1, 1.0) for n in range(50))\n"
        "    await write(Path(sys.argv[1]), Batch('killed', number, rows)); print(number, flush=True)\n"
        "asyncio.run(run())"
    )
    process = subprocess.Popen([sys.executable, "-c", program, store], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.kill()
    last = [*process.stdout][-1:]
    process.wait()
    process.stdout.close()
    told = int(last[0]) if last else 5
    counts = {row[5] for row in stored(store)}
    assert len(counts) == 1
    assert counts <= {told, told + 1}


def test_proxies_that_write_at_once_add_up(store):
    async def write_all() -> None:
        async def run(writer: str) -> None:
            for number in range(1, 6):
                await write(store, batch(ROW, number=number, writer=writer))

        await asyncio.gather(*map(run, "abcdefgh"))

    asyncio.run(write_all())
    assert stored(store) == [(*ROW[:5], 80, 400, 800, 20.0)]


def test_a_store_that_is_locked_for_a_while_is_waited_for_and_does_not_stop_the_loop(store, longest_turn):
    async def check() -> None:
        with locked(store) as connection:
            task = asyncio.create_task(write(store, batch(ROW)))
            longest = await longest_turn()
            assert not task.done()
            connection.execute("ROLLBACK")
            await task
            assert longest < 0.25

    asyncio.run(check())
    assert stored(store) == [tuple(ROW)]


def test_a_store_that_stays_locked_is_explained_and_has_the_batch_later_once(store, monkeypatch):
    monkeypatch.setattr("proxy.store.ledger.BUSY_TIMEOUT", 0.1)
    with locked(store):
        for _ in range(2):
            with pytest.raises(StoreError, match="is locked by another process"):
                put(store, batch(ROW))
    put(store, batch(ROW), batch(ROW))
    assert stored(store) == [tuple(ROW)]


def test_a_store_that_is_not_there_is_explained_and_not_made(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened: it and its directory must exist"):
        put(tmp_path / "keys.db", batch(ROW))
    assert not (tmp_path / "keys.db").exists()


def test_an_old_backup_under_a_running_proxy_is_explained(store):
    execute(store, "DROP TABLE usage", "DROP TABLE usage_writers")
    with pytest.raises(StoreError, match=r"schema of an older version.* restart the proxy"):
        put(store, batch(ROW))


def test_a_store_from_before_usage_was_counted_keeps_its_keys_and_can_count(database):
    database.parent.mkdir()
    config = alembic_config()
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    key = issue("laptop", HOUR)[1]
    with closing(sqlite3.connect(database)) as old:
        old.execute(
            "INSERT INTO keys (id, name, kind, scopes, cloud, limits, created) VALUES (?, ?, ?, ?, 0, ?, ?)",
            (key.id, "laptop", "api_key", '["read"]', "{}", HOUR),
        )
        old.execute("INSERT INTO key_secrets VALUES (?, ?, ?, NULL)", (key.id, key.secrets[0].digest, HOUR))
        old.commit()
    assert revision(database) == "0001"
    prepare(database)
    assert revision(database) == HEAD
    (kept,) = asyncio.run(load(database)).values()
    assert (kept.id, kept.name, kept.secrets, kept.scopes) == (key.id, "laptop", key.secrets, {"read"})
    asyncio.run(open_store(database).revoke(key.id, HOUR))
    put(database, batch(ROW))
    assert stored(database) == [tuple(ROW)]


def test_usage_that_is_older_than_it_is_kept_goes_and_the_rest_stays(store):
    put(store, batch(*(ROW._replace(hour=HOUR + 3600 * hour) for hour in range(10))))
    put(store, batch(ROW, writer="gone"))
    asyncio.run(prune(store, HOUR + 3600 * 7))
    assert [row[0] for row in stored(store)] == [HOUR + 3600 * hour for hour in (7, 8, 9)]
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("SELECT id FROM usage_writers").fetchall() == [("a",)]
    asyncio.run(prune(store, HOUR))
    assert len(stored(store)) == 3


def test_nobody_waits_long_while_much_old_usage_is_removed(store):
    rows = [(hour, "k", str(n), "m", "r", 1, 1, 1, 1.0) for hour in range(20) for n in range(SLICE)]
    with closing(sqlite3.connect(store)) as connection:
        connection.executemany(f"INSERT INTO usage VALUES ({', '.join('?' * 9)})", rows)
        connection.commit()

    async def run() -> float:
        pruning = asyncio.create_task(prune(store, 20))
        longest, number = 0.0, 0
        while not pruning.done():
            number += 1
            began = time.monotonic()
            await write(store, batch(ROW, number=number))
            longest = max(longest, time.monotonic() - began)
        await pruning
        assert number > 5
        return longest

    assert asyncio.run(run()) < 1.0
    assert [row[0] for row in stored(store)] == [HOUR]


def test_no_thread_is_left(store, threads):
    before = threads()
    put(store, batch(ROW))
    asyncio.run(prune(store, 0))
    for thread in threads() - before:
        thread.join(2)
        assert not thread.is_alive()


def test_a_running_proxy_needs_no_sqlalchemy_for_it(store):
    program = (
        "import asyncio, sys; from pathlib import Path; from proxy.store.ledger import write; "
        "from proxy.observe.ledger import Batch; asyncio.run(write(Path(sys.argv[1]), Batch('a', 1, ()))); "
        "print(sorted({'alembic', 'sqlalchemy', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, store], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
