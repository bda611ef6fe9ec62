"""The keys in the database, for those who change them: the command line, and the first start."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import NamedTuple

import aiosqlite
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from proxy.identity.api_keys import ApiKey
from proxy.store import tables
from proxy.store.connection import connect
from proxy.store.errors import NameTakenError, StoreError, UnknownKeyError, explain
from proxy.store.rows import ALL, ONE, USABLE, Found, keys_from_rows, printable, values_of
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


class Revoked(NamedTuple):
    """What is known of a key that was revoked, even where the rest of it cannot be read."""

    id: str
    name: str


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
            other = await self._id_of(key.name)
            if other is not None:
                raise NameTakenError(
                    f"the name {key.name!r} belongs to the key {other}: names are unique among keys "
                    "that are not revoked, so choose another name or revoke that key first"
                ) from None
            raise self._explain(fault) from fault
        except DBAPIError as fault:
            raise self._explain(fault) from fault

    async def list(self) -> builtins.list[ApiKey]:
        """Every key that ever was and can be read, the oldest first; those of one second by name."""
        return [*(await self._read(ALL)).keys.values()]

    async def unreadable(self) -> StoreError | None:
        """What is wrong with keys that are not revoked and cannot be read, and that the proxy so refuses."""
        return (await self._read(USABLE)).fault

    async def get(self, key_id: str) -> ApiKey:
        """The key with this id, revoked or not. Raises UnknownKeyError."""
        found = await self._read(ONE, id=_known_shape(key_id))
        if found.fault is not None:
            raise found.fault
        if key_id not in found.keys:
            raise _unknown()
        return found.keys[key_id]

    async def revoke(self, key_id: str, now: float) -> Revoked:
        """Ends a key for good, whether it can be read or not; one that was revoked before keeps its time.

        Raises UnknownKeyError.
        """
        keys = tables.keys
        this = keys.c.id == _known_shape(key_id)
        try:
            async with self._engine.begin() as connection:
                await connection.execute(
                    update(keys).where(this, keys.c.revoked.is_(None)).values(revoked=int(now))
                )
                row = (await connection.execute(select(keys.c.name).where(this))).first()
        except DBAPIError as fault:
            raise self._explain(fault) from fault
        if row is None:
            raise _unknown()
        return Revoked(key_id, printable(row[0]))

    async def load_all(self) -> dict[str, ApiKey]:
        """The keys that may be presented, by id: all but the revoked ones. The expired are told so."""
        return (await self._read(USABLE)).keys

    async def close(self) -> None:
        await self._engine.dispose()

    async def _id_of(self, name: str) -> str | None:
        keys = tables.keys
        query = select(keys.c.id).where(keys.c.name == name, keys.c.revoked.is_(None))
        try:
            async with self._engine.connect() as connection:
                row = (await connection.execute(query)).first()
        except DBAPIError as fault:
            raise self._explain(fault) from fault
        return None if row is None else printable(row[0])

    async def _read(self, query: str, **parameters: str) -> Found:
        try:
            async with self._engine.connect() as connection:
                return keys_from_rows(await connection.execute(text(query), parameters))
        except DBAPIError as fault:
            raise self._explain(fault) from fault

    def _explain(self, fault: DBAPIError) -> StoreError:
        return explain(fault.orig or fault, self._path)


def _known_shape(key_id: str) -> str:
    """The id itself. One outside of ASCII no key has, and not all of them can be asked for."""
    if not key_id.isascii():
        raise _unknown()
    return key_id


def _unknown() -> UnknownKeyError:
    return UnknownKeyError(
        "no key has this id: it is the 10 characters after oap_, and 'ollama-auth-proxy keys list' shows them"
    )
