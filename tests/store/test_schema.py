from __future__ import annotations

import os
import re
import resource
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from proxy.store import tables
from proxy.store.errors import StoreError
from proxy.store.migrate import alembic_config
from proxy.store.schema import HEAD, prepare, revision

PREPARE = (
    "import sys; from pathlib import Path; from proxy.store.schema import prepare; prepare(Path(sys.argv[1]))"
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def schema(connection: sqlite3.Connection) -> dict[str, str]:
    """The statements that make our tables and indexes, without differences in blanks."""
    made = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL AND name != 'alembic_version'"
    )
    return {name: re.sub(r"\s+", " ", sql) for name, sql in made}


def test_the_revision_in_the_code_is_the_newest_migration():
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]


def test_migrations_lead_to_the_tables_that_the_code_uses(database):
    prepare(database)
    assert revision(database) == HEAD
    engine = create_engine(f"sqlite:///{database}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    engine.dispose()
    fresh = create_engine("sqlite://")
    with fresh.connect() as connection, closing(sqlite3.connect(database)) as migrated:
        tables.metadata.create_all(connection)
        assert schema(migrated) == schema(connection.connection.driver_connection)
    fresh.dispose()


def test_a_new_database_is_private_whatever_the_umask(tmp_path):
    database = tmp_path / "data" / "keys.db"
    before = os.umask(0)
    try:
        prepare(database)
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("DELETE FROM keys")
            connection.execute("SELECT * FROM keys").fetchall()
            files = {file.name: mode(file) for file in database.parent.iterdir()}
    finally:
        os.umask(before)
    assert files == {"keys.db": 0o600, "keys.db-wal": 0o600, "keys.db-shm": 0o600}
    assert mode(database.parent) == 0o700


def test_modes_of_what_is_there_already_are_left_alone(tmp_path):
    tmp_path.chmod(0o755)
    database = tmp_path / "keys.db"
    database.touch()
    database.chmod(0o640)
    prepare(database)
    assert (mode(tmp_path), mode(database)) == (0o755, 0o640)


def test_the_database_uses_a_write_ahead_log(database):
    prepare(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_that_is_ready_is_left_as_it_is_and_needs_neither_alembic_nor_sqlalchemy(database):
    prepare(database)
    before = database.read_bytes()
    program = (
        f"{PREPARE}; import proxy.store.follow; "
        "print(sorted({'alembic', 'mako', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, database], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert database.read_bytes() == before


def test_many_processes_may_make_the_database_at_once(database):
    processes = [
        subprocess.Popen([sys.executable, "-c", PREPARE, database], stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    results = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert results == [("", 0)] * 6
    assert revision(database) == HEAD


def test_an_empty_file_becomes_a_database(database):
    database.parent.mkdir()
    database.touch()
    prepare(database)
    assert revision(database) == HEAD


def test_a_database_of_a_newer_version_is_refused_and_not_touched(database):
    prepare(database)
    execute(database, "UPDATE alembic_version SET version_num = '9999'", "PRAGMA wal_checkpoint(TRUNCATE)")
    before = database.read_bytes()
    with pytest.raises(StoreError, match=rf"newer version .* \(its schema is 9999, .* knows {HEAD}\)"):
        prepare(database)
    assert database.read_bytes() == before


def test_the_database_of_another_program_is_refused_and_not_touched(tmp_path):
    database = tmp_path / "firefox.db"
    execute(database, "CREATE TABLE bookmarks (url TEXT)")
    before = database.read_bytes()
    with pytest.raises(StoreError, match="is the database of another program"):
        prepare(database)
    assert database.read_bytes() == before


@pytest.mark.parametrize("name", ["a b", "q?mode=ro", "h#x", "100%41", "é", "a'b", "a&b=c"])
def test_any_name_of_a_file_will_do(tmp_path, name):
    prepare(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert revision(tmp_path / name) == HEAD


def test_a_relative_path_starts_at_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(Path("data/keys.db"))
    assert revision(tmp_path / "data" / "keys.db") == HEAD


def test_a_link_to_nothing_does_not_create_a_file_that_others_can_read(tmp_path):
    (tmp_path / "keys.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StoreError, match="cannot be opened"):
        prepare(tmp_path / "keys.db")
    assert not (tmp_path / "elsewhere.db").exists()


def _two_missing_directories(folder: Path) -> Path:
    return folder / "one" / "two" / "keys.db"


def _below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "keys.db"


def _a_directory(folder: Path) -> Path:
    (folder / "keys.db").mkdir()
    return folder / "keys.db"


def _no_database(folder: Path) -> Path:
    (folder / "keys.db").write_text("[listen]\n" * 100)
    return folder / "keys.db"


def _damaged(folder: Path) -> Path:
    prepare(folder / "keys.db")
    content = bytearray((folder / "keys.db").read_bytes())
    content[100:4096] = b"\xff" * 3996
    (folder / "keys.db").write_bytes(content)
    return folder / "keys.db"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_two_missing_directories, "the directory .*/one does not exist: create it, or change store.url"),
        (_below_a_file, "cannot be used: (Not a directory|File exists)"),
        (_a_directory, "is a directory: store.url must name a file"),
        (_no_database, "is not an SQLite database: give another path"),
        (_damaged, "is damaged: restore it from a backup"),
    ],
)
def test_a_path_that_cannot_be_used_is_explained(tmp_path, make, sentence):
    with pytest.raises(StoreError, match=sentence):
        prepare(make(tmp_path))


@pytest.mark.parametrize("limit", [2048, 8192, 32_768])  # fails at the file, at its -shm, at its -wal
def test_a_migration_on_a_full_disk_is_explained_and_leaves_nothing_half_done(database, limit):
    program = (
        "import sys; from pathlib import Path; from proxy.store.schema import prepare\n"
        "try: prepare(Path(sys.argv[1]))\n"
        "except Exception as fault: print(type(fault).__name__, fault)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, database],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.stdout == (
        f"StoreError the key store {database} cannot be read or written: "
        "the disk reports an error, or is full\n"
    )
    assert revision(database) is None
    prepare(database)
    assert revision(database) == HEAD
