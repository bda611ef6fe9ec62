"""What can go wrong with the store, in sentences for operators."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StoreError(Exception):
    """The store cannot do what was asked; the text says what is wrong and what to do."""


class UnknownKeyError(StoreError):
    """No key has the id that was asked for."""


class NameTakenError(StoreError):
    """Another key, not revoked, has the name."""


class PublicKeyTakenError(StoreError):
    """Another ssh key, not revoked, has the public key."""


_SENTENCES = {
    "SQLITE_AUTH": "may not be used: give this user read and write access to it and to its directory",
    "SQLITE_BUSY": "is locked by another process: try again, or end the program that holds it",
    "SQLITE_CANTOPEN": "cannot be opened: it and its directory must exist and be accessible to this user",
    "SQLITE_CORRUPT": "is damaged: restore it from a backup",
    "SQLITE_FULL": "cannot grow: the disk is full",
    "SQLITE_IOERR": "cannot be read or written: the disk reports an error, or is full",
    "SQLITE_LOCKED": "is locked by another process: try again, or end the program that holds it",
    "SQLITE_NOTADB": "is not an SQLite database: give another path, or restore it from a backup",
    "SQLITE_PERM": "may not be used: give this user read and write access to it and to its directory",
    "SQLITE_READONLY": "may not be written: give this user write access to it and to its directory",
}


def explain(fault: BaseException, path: Path) -> StoreError:
    """The sentence for a fault of SQLite or of the operating system, with ``path`` in it."""
    if isinstance(fault, sqlite3.Error):
        name = (
            getattr(fault, "sqlite_errorname", None) or ""
        )  # only errors that SQLite itself reported have one
        primary = "_".join(
            name.split("_")[:2]
        )  # SQLITE_READONLY_DIRECTORY and the like are kinds of the first
        if primary in _SENTENCES:
            return StoreError(f"the key store {path} {_SENTENCES[primary]}")
        return StoreError(f"the key store {path} cannot be used: {fault}")
    if isinstance(fault, OSError):
        return StoreError(f"the key store {path} cannot be used: {fault.strerror or fault}")
    return StoreError(f"the key store {path} cannot be used ({type(fault).__name__})")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns faults of SQLite and of the operating system into StoreError."""
    try:
        yield
    except (sqlite3.Error, OSError) as fault:
        raise explain(fault, path) from fault
