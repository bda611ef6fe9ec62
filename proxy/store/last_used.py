"""Writes down when keys were last used, for a running proxy.

With the bare driver, as ``follow`` reads: SQLAlchemy would cost the proxy 20 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.store.connection import connect
from proxy.store.errors import explained
from proxy.store.schema import BUSY_TIMEOUT

_UPDATE = """
UPDATE keys SET last_used = :time WHERE id = :id AND (last_used IS NULL OR last_used < :time)
"""


async def write_last_used(path: Path, used: Mapping[str, float]) -> None:
    """Stores the unix second at which each of the keys, by id, was used last; all or none.

    A later time that is stored already stays, since several proxies may write. Ids that no key has are
    passed over. The file must be there (see ``schema.prepare``).

    Raises StoreError, after which the same times can be written again.
    """
    if not used:
        return
    with explained(path):
        connection = await connect(path, "rw", BUSY_TIMEOUT, "synchronous = NORMAL")
        try:
            await connection.executemany(
                _UPDATE, [{"id": key_id, "time": int(time)} for key_id, time in used.items()]
            )
            await connection.commit()
        finally:
            await connection.close()
