"""Opens SQLite files without blocking the event loop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import aiosqlite

from proxy.store.schema import uri


async def connect(
    path: Path, mode: Literal["ro", "rw"], patience: float, *pragmas: str
) -> aiosqlite.Connection:
    """A connection that waits ``patience`` seconds for a lock.

    Raises sqlite3.Error where the file cannot be opened or is no database.
    """
    connection = aiosqlite.connect(uri(path, mode), uri=True, timeout=patience)
    try:
        await connection
    except BaseException:
        # Nobody waits for the thread of a connection that failed to open, and it may find the loop closed.
        connection._thread.join()
        raise
    # Text that is not UTF-8 is for the reader of its row to refuse; the driver would refuse the whole table.
    connection.text_factory = _text
    try:
        for pragma in pragmas:
            await connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        await connection.close()  # its thread would keep the process from ending
        raise
    return connection


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")
