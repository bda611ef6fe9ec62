"""Makes the database ready before anyone uses it: there, private, and with the schema this version knows.

Only a database that is new or old needs Alembic, so only then is it imported (31 MB with SQLAlchemy).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from proxy.store.errors import StoreError, explained

HEAD = "0002"
"""The newest revision in ``migrations/versions``."""

BUSY_TIMEOUT = 5.0
"""Seconds for which a writer waits for another one."""


def prepare(path: Path) -> None:
    """Creates the database where it is missing and migrates it where it is old; blocking.

    A new file has mode 0600, which SQLite gives to its -wal and -shm files too; a missing directory is
    made with mode 0700, its parents are not. Any number of processes may do this at once.

    Raises StoreError where the path cannot be used, holds something else, or was written by a newer version.
    """
    with explained(path):
        _create_file(path)
        if revision(path) != HEAD:
            from proxy.store.migrate import migrate  # Alembic costs memory that a ready database saves

            migrate(path)


def revision(path: Path) -> str | None:
    """The revision of the schema in the database; None where it is empty.

    Raises StoreError where the tables are not ours, sqlite3.Error where it cannot be read.
    """
    with closing(sqlite3.connect(uri(path, "ro"), uri=True, timeout=BUSY_TIMEOUT)) as connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise StoreError(f"{path} is the database of another program: give the store a file of its own")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return row[0] if row else None


def uri(path: Path, mode: str) -> str:
    """SQLite's URI for a path. ``mode`` is ro or rw, never rwc: files are created here, with their mode."""
    return f"{path.absolute().as_uri()}?mode={mode}"


def _create_file(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a directory: store.url must name a file")
    if path.exists():
        return
    if not path.parent.parent.is_dir():
        raise StoreError(f"the directory {path.parent.parent} does not exist: create it, or change store.url")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):  # another process was faster
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
