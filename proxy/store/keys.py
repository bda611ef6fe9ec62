"""The keys in the database, for those who change them: the command line, and the first start."""

from __future__ import annotations

import builtins
from pathlib import Path

import aiosqlite
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from proxy.identity.api_keys import ApiKey
from proxy.store import tables
from proxy.store.connection import connect
from proxy.store.errors import NameTakenError, StoreError, UnknownKeyError, explain
from proxy.store.rows import ALL, ONE, USABLE, keys_from_rows, values_of
from proxy.store.schema import BUSY_TIMEOUT, prepare


def open_store(path: Path) -> KeyStore:
    """The keys of an SQLite file, which is created and migrated first where need be; blocking.

    Raises StoreError where that is not possible.
    """
    prepare(path)

    async def opened() -> aiosqlite.Connection:
        # synchronous NORMAL cannot damage a file with a write-ahead log, and spares a wait for the disk
        return await connect(path, "rw", BUSY_TIMEOUT, "foreign_keys = ON", "synchronous = NORMAL")

    # Connections are not kept: a command makes one or two.
    engine = create_async_engine(
        "sqlite+aiosqlite://", async_creator=opened, poolclass=NullPool, hide_parameters=True
    )
    return KeyStore(engine, path)


class KeyStore:
    """Creates, lists and revokes keys. Every method raises StoreError where the database fails."""

    def __init__(self, engine: AsyncEngine, path: Path) -> None:
        self._engine = engine
        self._path = path

    async def create(self, key: ApiKey) -> None:
        """Stores a new key, as ``api_keys.issue`` makes it.

        Raises NameTakenError where a key that is not revoked has its name.
        """
        secrets = [
            {"key_id": key.id, "digest": digest, "created": int(key.created)} for digest in key.digests
        ]
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(tables.keys), values_of(key))
                await connection.execute(insert(tables.key_secrets), secrets)
        except IntegrityError as fault:
            for other in (await self.load_all()).values():
                if other.name == key.name:
                    raise NameTakenError(
                        f"the name {key.name!r} belongs to the key {other.id}: names are unique among keys "
                        "that are not revoked, so choose another name or revoke that key first"
                    ) from None
            raise self._explain(fault) from fault
        except DBAPIError as fault:
            raise self._explain(fault) from fault

    async def list(self) -> builtins.list[ApiKey]:
        """Every key that ever was, the oldest first; those of one second by name."""
        return [*(await self._read(ALL)).values()]

    async def get(self, key_id: str) -> ApiKey:
        """The key with this id, revoked or not. Raises UnknownKeyError."""
        found = await self._read(ONE, id=key_id) if key_id.isascii() else {}
        if key_id not in found:
            raise UnknownKeyError(
                "no key has this id: it is the 10 characters after oap_, "
                "and 'ollama-auth-proxy keys list' shows them"
            )
        return found[key_id]

    async def revoke(self, key_id: str, now: float) -> ApiKey:
        """Ends a key for good, and returns it; one that was revoked before keeps its time.

        Raises UnknownKeyError.
        """
        key = await self.get(key_id)
        if key.revoked is not None:
            return key
        keys = tables.keys
        try:
            async with self._engine.begin() as connection:
                await connection.execute(
                    update(keys).where(keys.c.id == key_id, keys.c.revoked.is_(None)).values(revoked=int(now))
                )
        except DBAPIError as fault:
            raise self._explain(fault) from fault
        return await self.get(key_id)

    async def load_all(self) -> dict[str, ApiKey]:
        """The keys that may be presented, by id: all but the revoked ones. The expired are told so."""
        return await self._read(USABLE)

    async def close(self) -> None:
        await self._engine.dispose()

    async def _read(self, query: str, **parameters: str) -> dict[str, ApiKey]:
        try:
            async with self._engine.connect() as connection:
                return keys_from_rows(await connection.execute(text(query), parameters))
        except DBAPIError as fault:
            raise self._explain(fault) from fault

    def _explain(self, fault: DBAPIError) -> StoreError:
        return explain(fault.orig or fault, self._path)
