"""Brings a database to the newest revision, with Alembic, in one exclusive transaction."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from proxy.store.errors import StoreError, explain, explained
from proxy.store.schema import HEAD, uri

_PATIENCE = 10.0  # seconds for another process that migrates at the same time


def alembic_config() -> Config:
    """The configuration of the migrations in this package; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def migrate(path: Path) -> None:
    """Applies the missing migrations, all or none. The file must exist.

    Raises StoreError where a newer version of this program wrote the database, or where SQLite fails.
    """
    with explained(path):
        with closing(_connect(path)) as database:
            _use_write_ahead_log(database)
        try:
            _upgrade(path)
        except DBAPIError as fault:
            raise explain(fault.orig or fault, path) from fault


def _upgrade(path: Path) -> None:
    config = alembic_config()
    engine = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")  # who comes second waits here and finds nothing to do
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and not _is_known(config, current):
            raise StoreError(
                f"the key store {path} was written by a newer version of ollama-auth-proxy "
                f"(its schema is {current}, this version knows {HEAD}): upgrade, or restore a backup"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _connect(path: Path) -> sqlite3.Connection:
    # isolation_level None: the transaction is ours, the driver opens and ends none of its own
    return sqlite3.connect(uri(path, "rw"), uri=True, timeout=_PATIENCE, isolation_level=None)


def _use_write_ahead_log(database: sqlite3.Connection) -> None:
    """Readers and the one writer no longer wait for each other; the mode stays with the file.

    SQLite does not wait for a lock when it changes the mode, hence the loop.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _is_known(config: Config, revision: str) -> bool:
    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError:
        return False
    return True
