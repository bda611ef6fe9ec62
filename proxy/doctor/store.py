"""Whether the store can be written, whether its schema is ours, and what room is left. `judge…` is pure."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.store.errors import StoreError, explained
from proxy.store.rows import ALL, Found, keys_from_rows
from proxy.store.schema import HEAD, revision, uri

PATIENCE = 3.0
"""Seconds to wait for a lock, and seconds that the check of the whole file may take."""

LITTLE, VERY_LITTLE = 200 << 20, 10 << 20
"""Bytes of free room."""

TIMEOUT = 4 * PATIENCE
"""Seconds for all of it."""


class Seen(NamedTuple):
    """``checked`` says that there was time for the whole file; ``fault`` is what ended the look at it."""

    there: bool
    free: int | None
    schema: str | None = None
    fault: str = ""
    damage: str = ""
    checked: bool = True
    keys: Found | None = None


def look(path: Path) -> Seen:
    """Blocking. Nothing is left behind; a missing file stays missing."""
    free = _free(path)
    if not path.exists():
        return Seen(False, free)
    schema: str | None = None
    try:
        # The connection that writes is closed last, and takes the log and its index away, as it found none.
        with explained(path), closing(_connect(path)) as database:
            database.execute("SELECT name FROM sqlite_master").fetchall()
            schema = revision(path)
            if schema != HEAD:
                return Seen(True, free, schema)
            _try_to_write(database)
            damage, checked = _quick_check(database)
            return Seen(True, free, schema, damage=damage, checked=checked, keys=_keys(database))
    except StoreError as fault:
        return Seen(True, free, schema, fault=str(fault))


def _free(path: Path) -> int | None:
    folder = path.parent if path.parent.exists() else path.parent.parent
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _try_to_write(database: sqlite3.Connection) -> None:
    """Changes a row, and takes it back. Raises sqlite3.Error."""
    database.execute("BEGIN IMMEDIATE")
    try:
        database.execute("UPDATE alembic_version SET version_num = version_num")
    finally:
        database.execute("ROLLBACK")


def _quick_check(database: sqlite3.Connection) -> tuple[str, bool]:
    """What is damaged, and whether there was time to look at the whole file."""
    deadline = time.monotonic() + PATIENCE
    database.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
    try:
        ((result,),) = database.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as fault:
        if fault.sqlite_errorname == "SQLITE_INTERRUPT":
            return "", False
        raise
    finally:
        database.set_progress_handler(None, 0)
    return ("", True) if result == "ok" else (str(result)[:200], True)


def _keys(database: sqlite3.Connection) -> Found:
    database.text_factory = lambda stored: stored.decode("utf-8", "surrogateescape")
    return keys_from_rows(database.execute(ALL))


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(uri(path, "rw"), uri=True, timeout=PATIENCE, isolation_level=None)


def judge(seen: Seen, path: Path) -> Iterator[Finding]:
    yield from _judge_free(seen.free, path)
    if not seen.there:
        yield note("store_missing", f"the store {path} is not there yet; 'serve' and 'keys create' make it")
    elif seen.fault:
        yield error("store_fault", *_halves(seen.fault))
    elif seen.schema is None or seen.schema < HEAD:
        yield note(
            "store_not_migrated",
            f"the store {path} has schema {seen.schema or 'none'}, and this version has {HEAD}",
            "back the file up; the next start of 'serve', and every 'keys' command, migrates it",
        )
    elif seen.schema > HEAD:
        yield error(
            "store_of_newer_version",
            f"the store {path} has schema {seen.schema}, and this version knows {HEAD}",
            "upgrade ollama-auth-proxy, or restore a backup",
        )
    elif seen.damage:
        yield error(
            "store_damaged", f"the store {path} is damaged: {seen.damage}", "restore it from a backup"
        )
    else:
        yield ok("store_writable", f"the store {path} can be written, and has schema {seen.schema}")
        if not seen.checked:
            yield note(
                "store_check_too_long",
                f"the store {path} is too large to be checked for damage within {PATIENCE:g} s",
                f"check it by itself: sqlite3 {path} 'PRAGMA quick_check'",
            )


def _judge_free(free: int | None, path: Path) -> Iterator[Finding]:
    if free is None:
        yield note("disk_unknown", f"how much room is left for {path} cannot be told")
    elif free < LITTLE:
        say = error if free < VERY_LITTLE else warning
        yield say(
            "disk_full",
            f"{free >> 20} MiB are left for the store {path}",
            "make room there, or move the store; a shorter store.usage_retention keeps less usage",
        )


def _halves(fault: str) -> tuple[str, str]:
    """What is wrong, and what to do; the store's sentences have both."""
    wrong, colon, right = fault.rpartition(": ")
    return (wrong, right) if colon else (fault, "see what the folder and the file are, or restore a backup")
