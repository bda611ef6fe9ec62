"""The keys in the database, for those who change them: the command line, and the first start."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import NamedTuple, Unpack

import aiosqlite
from sqlalchemy import delete, insert, or_, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from proxy.identity.api_keys import SSH, ApiKey, Grants, granted
from proxy.store import tables
from proxy.store.connection import connect
from proxy.store.errors import NameTakenError, PublicKeyTakenError, StoreError, UnknownKeyError, explain
from proxy.store.rows import ALL, ONE, USABLE, Found, keys_from_rows, printable, values_of, whole_seconds
from proxy.store.schema import BUSY_TIMEOUT, prepare

_KEPT = 7 * 86_400
"""Seconds for which a replaced secret is still known, so that whoever has the old key can be told why."""


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
    """Creates, lists, changes and revokes keys. Every method raises StoreError where the database fails."""

    def __init__(self, engine: AsyncEngine, path: Path) -> None:
        self._engine = engine
        self._path = path

    async def create(self, key: ApiKey) -> None:
        """Stores a new key, as ``api_keys.issue`` or ``issue_ssh`` makes it.

        Raises NameTakenError where a key that is not revoked has its name, PublicKeyTakenError where one has
        its public key: a signature names one key, and must not open two.
        """
        secrets = [
            {
                "key_id": key.id,
                "digest": secret.digest,
                "created": int(key.created),
                "expires": whole_seconds(secret.expires),
            }
            for secret in key.secrets
        ]
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(tables.keys), values_of(key))
                await connection.execute(insert(tables.key_secrets), secrets)
                if key.kind == SSH:
                    await _check_that_nobody_else_has_its_public_key(connection, key)
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
        return _only(await self._read(ONE, id=_known_shape(key_id)), key_id)

    async def change(self, key_id: str, **grants: Unpack[Grants]) -> ApiKey:
        """Gives a key other rights (see ``api_keys.granted``); returns it as it is then.

        Raises UnknownKeyError, and StoreError where it is revoked or the rights make no sense.
        """
        try:
            async with self._engine.begin() as connection:
                key = granted(await _in_force(connection, key_id), **grants)
                await connection.execute(
                    update(tables.keys).where(tables.keys.c.id == key.id).values(values_of(key))
                )
                return key
        except ValueError as fault:
            raise StoreError(f"the key {printable(key_id)} stays as it was: {fault}") from None
        except DBAPIError as fault:
            raise self._explain(fault) from fault

    async def rotate(self, key_id: str, secret_digest: bytes, now: float, overlap: float) -> ApiKey:
        """Gives a key another secret; those it had end after ``overlap`` seconds, or before if they would.

        Returns the key as it is then. Raises UnknownKeyError, and StoreError where it is revoked or signs.
        """
        secrets = tables.key_secrets
        of_this_key = secrets.c.key_id == _known_shape(key_id)
        end = int(now + overlap)
        new = {"key_id": key_id, "digest": secret_digest, "created": int(now), "expires": None}
        try:
            async with self._engine.begin() as connection:
                key = await _in_force(connection, key_id)
                if key.kind == SSH:
                    raise StoreError(
                        f"the key {key.id} is an ssh key, whose secret its owner has: register the new "
                        "public key with 'ollama-auth-proxy keys add-ssh' and revoke this one"
                    )
                await connection.execute(delete(secrets).where(of_this_key, secrets.c.expires < now - _KEPT))
                later = or_(secrets.c.expires.is_(None), secrets.c.expires > end)
                await connection.execute(update(secrets).where(of_this_key, later).values(expires=end))
                await connection.execute(insert(secrets), new)
                return await _in_force(connection, key_id)
        except DBAPIError as fault:
            raise self._explain(fault) from fault

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


async def _in_force(connection: AsyncConnection, key_id: str) -> ApiKey:
    """The key, which nobody else changes before this transaction ends. Raises StoreError."""
    keys = tables.keys
    this = keys.c.id == _known_shape(key_id)
    # SQLite lets others write between a transaction's reading and its writing, so it begins with writing.
    await connection.execute(update(keys).where(this).values(id=keys.c.id))
    key = _only(keys_from_rows(await connection.execute(text(ONE), {"id": key_id})), key_id)
    if key.revoked is not None:
        raise StoreError(f"the key {key.id} was revoked, which is for good: create another")
    return key


async def _check_that_nobody_else_has_its_public_key(connection: AsyncConnection, key: ApiKey) -> None:
    keys, secrets = tables.keys, tables.key_secrets
    query = (
        select(keys.c.id)
        .join(secrets, secrets.c.key_id == keys.c.id)
        .where(secrets.c.digest.in_([secret.digest for secret in key.secrets]))
        .where(keys.c.kind == SSH, keys.c.revoked.is_(None), keys.c.id != key.id)
    )
    row = (await connection.execute(query)).first()
    if row is not None:
        raise PublicKeyTakenError(
            f"this public key is registered already, as the key {printable(row[0])}: change that one with "
            "'ollama-auth-proxy keys set', or revoke it first"
        )


def _only(found: Found, key_id: str) -> ApiKey:
    """The key that was asked for. Raises StoreError where it cannot be read, UnknownKeyError."""
    if found.fault is not None:
        raise found.fault
    if key_id not in found.keys:
        raise _unknown()
    return found.keys[key_id]


def _known_shape(key_id: str) -> str:
    """The id itself. One outside of ASCII no key has, and not all of them can be asked for."""
    if not key_id.isascii():
        raise _unknown()
    return key_id


def _unknown() -> UnknownKeyError:
    return UnknownKeyError(
        "no key has this id: it is the 10 characters after oap_, and 'ollama-auth-proxy keys list' shows them"
    )
