"""Keeps a running proxy's keys as they are in the database, within half a second.

SQLite's ``PRAGMA data_version`` changes when another connection commits. It does so only for the
connection that asks, and only outside a transaction, so one connection is kept for it. SQLAlchemy would
be in the way: it opens a transaction with the first statement and resets connections between uses. The
bare driver asks at the cost of one hop to its thread, which sleeps in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import aiosqlite

from proxy.identity.api_keys import ApiKey
from proxy.store.connection import connect
from proxy.store.errors import StoreError, explained
from proxy.store.rows import FOLLOWED, Found, keys_from_rows

_LOCK_PATIENCE = 1.0  # seconds; a lock that lasts longer is reported, and tried again


async def load(path: Path) -> dict[str, ApiKey]:
    """The usable keys in a database that is ready (see ``schema.prepare``). Raises StoreError.

    Keys that cannot be read are left out; ``follow`` reports them as soon as it begins.
    """
    with explained(path):
        async with _connected(path) as connection:
            return keys_from_rows(await _read(connection)).keys


async def follow(
    path: Path,
    on_change: Callable[[Mapping[str, ApiKey]], None],
    on_fault: Callable[[StoreError | None], None],
    interval: float = 0.5,
) -> NoReturn:
    """Hands on the keys at once, and again after every change, until it is cancelled.

    While the database cannot be read, the keys last handed on stay as they are. A key that cannot be read
    is left out, and the others are handed on. ``on_fault`` is called with the reason when either begins or
    the reason changes, and with None when it ends. A file that was replaced, by a restored backup, is
    noticed and opened anew. ``interval`` is in seconds.
    """
    keys: Mapping[str, ApiKey] | None = None
    rows: Sequence[Any] = ()
    found = Found({}, ())
    reason = ""

    def hand_on(read: Sequence[Any]) -> None:
        nonlocal keys, rows, found
        if read != rows:  # every proxy tells when keys were used, and thousands of keys take 60 ms to make
            rows, found = read, keys_from_rows(read)
        if found.keys != keys:  # the database holds more than keys, and not every change is one of theirs
            keys = found.keys
            on_change(keys)
        report(found.fault)

    def report(fault: StoreError | None) -> None:
        nonlocal reason
        if str(fault or "") != reason:
            reason = str(fault or "")
            on_fault(fault)

    while True:
        try:
            with explained(path):
                await _until_replaced(path, hand_on, interval)
        except StoreError as fault:
            report(fault)
            await asyncio.sleep(interval)


async def _until_replaced(path: Path, hand_on: Callable[[Sequence[Any]], None], interval: float) -> None:
    """Follows one file, and returns when another stands in its place."""
    database = _inode(path)
    log = _log_of(path)
    async with _connected(path) as connection:
        version = await _data_version(connection)  # asked first: what changes while we read is read again
        hand_on(await _read(connection))
        # SQLite keeps the log for as long as we are connected. If it goes, somebody copied a backup over the
        # file in place, and this connection would look at the deleted log for ever.
        log_inode = _inode(log)
        while True:
            await asyncio.sleep(interval)
            if _inode(path) != database or _inode(log) != log_inode:
                return
            current = await _data_version(connection)
            if current != version:
                hand_on(await _read(connection))
                version = current


@asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    # Read-only: a proxy needs no right to change keys, and must never write an old log into a restored file.
    connection = await connect(path, "ro", _LOCK_PATIENCE)
    try:
        yield connection
    finally:
        await connection.close()


async def _data_version(connection: aiosqlite.Connection) -> int:
    ((version,),) = await connection.execute_fetchall("PRAGMA data_version")
    return int(version)


async def _read(connection: aiosqlite.Connection) -> Sequence[Any]:
    return [*await connection.execute_fetchall(FOLLOWED)]


def _log_of(path: Path) -> Path:
    """The write-ahead log, which SQLite keeps beside the file itself, not beside a link to it."""
    return Path(f"{path.resolve()}-wal")


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
