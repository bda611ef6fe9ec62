"""Adds what was used to the store, for a running proxy, and drops what is older than it is kept.

With the bare driver, as ``follow`` reads: SQLAlchemy would cost the proxy 20 MB.

A batch is added once, however often it is offered. In the same transaction as its rows stands its number, one
a process, and a number that the store has already is passed over. That settles what SQLite leaves open: a
commit that fails after its last page is in the log may come back when the log is recovered, and a writer that
is cancelled cannot know whether its thread had committed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from proxy.observe.ledger import Batch
from proxy.store.connection import connect
from proxy.store.errors import StoreError, explained
from proxy.store.schema import BUSY_TIMEOUT

SLICE = 1000
"""Rows removed in one transaction, some milliseconds for which other writers wait."""

_PAUSE = 0.02  # seconds between slices, in which SQLite lets waiting writers in

_CLAIM = """
INSERT INTO usage_writers (id, batch, hour) VALUES (:id, :batch, :hour)
ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, hour = excluded.hour
WHERE usage_writers.batch < excluded.batch
"""

_ADD = """
INSERT INTO usage (hour, key_id, key_name, model, route, requests, input_tokens, output_tokens, seconds)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (hour, key_id, key_name, model, route) DO UPDATE SET
    requests = usage.requests + excluded.requests,
    input_tokens = usage.input_tokens + excluded.input_tokens,
    output_tokens = usage.output_tokens + excluded.output_tokens,
    seconds = usage.seconds + excluded.seconds
"""

_PRUNE = f"""
DELETE FROM usage WHERE (hour, key_id, key_name, model, route) IN (
    SELECT hour, key_id, key_name, model, route FROM usage WHERE hour < ? ORDER BY hour LIMIT {SLICE}
)
"""

_PRUNE_WRITERS = "DELETE FROM usage_writers WHERE hour < ?"


async def write(path: Path, batch: Batch) -> None:
    """Adds a batch to what the store has, all of it or nothing; one that it has already is passed over.

    Several proxies may write at once. The file must be there (see ``schema.prepare``). When this returns, the
    batch is on the disk.

    Raises StoreError. After that, and when it was cancelled, the same batch can be written again.
    """
    with explained(path):
        # synchronous FULL: unlike the time of a last use, what was used is worth a wait for the disk
        connection = await connect(path, "rw", BUSY_TIMEOUT, "synchronous = FULL")
        try:
            newest = max((row.hour for row in batch.rows), default=0)
            claim = {"id": batch.writer, "batch": batch.number, "hour": newest}
            if (await connection.execute(_CLAIM, claim)).rowcount:
                rows = [row._replace(key_id=row.key_id or "", model=row.model or "") for row in batch.rows]
                await connection.executemany(_ADD, rows)
                await connection.commit()
        except sqlite3.OperationalError as fault:
            if "no such table" not in str(fault):
                raise
            raise StoreError(
                f"the key store {path} has the schema of an older version, as a restored backup may: "
                "restart the proxy, which migrates it"
            ) from None
        finally:
            await connection.close()


async def prune(path: Path, before: int) -> None:
    """Removes usage of hours that began before this unix second, in slices between which others can write.

    Raises StoreError; what it has removed by then stays removed.
    """
    with explained(path):
        connection = await connect(path, "rw", BUSY_TIMEOUT, "synchronous = NORMAL")
        try:
            while True:
                removed = (await connection.execute(_PRUNE, (before,))).rowcount
                await connection.commit()
                if removed < SLICE:
                    break
                await asyncio.sleep(_PAUSE)
            await connection.execute(_PRUNE_WRITERS, (before,))
            await connection.commit()
        finally:
            await connection.close()
