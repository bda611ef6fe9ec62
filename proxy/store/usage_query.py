"""Sums up the usage that is in the store, for the command line. It changes nothing; nobody waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any

from proxy.store.errors import StoreError, explained
from proxy.store.schema import BUSY_TIMEOUT, HEAD, revision, uri


class By(StrEnum):
    """What usage can be told apart by."""

    KEY = "key"
    MODEL = "model"
    DAY = "day"


COLUMNS = {By.KEY: ("key_id", "key_name"), By.MODEL: ("model",), By.DAY: ("day",)}
"""The members of a row that tell which one it is."""

SUMS = ("requests", "input_tokens", "output_tokens", "seconds")

_VALUES = {
    "key_id": "nullif(key_id, '')",
    "key_name": "key_name",
    "model": "nullif(model, '')",
    "day": "strftime('%Y-%m-%d', hour, 'unixepoch')",
}

_FIRST_WITH_USAGE = "0002"


def read_usage(path: Path, start: int, end: int, by: Sequence[By]) -> list[dict[str, Any]]:
    """The usage of the hours that began in ``start`` to ``end``, unix seconds, one dict a row; blocking.

    Members are those of ``COLUMNS`` for each of ``by``, in that order, then ``SUMS``. ``day`` is a date in
    UTC; ``key_id`` and ``model`` may be None. Rows stand in the order of what they are told apart by; where
    that is the key or the model alone, those with the most tokens come first.

    A store of a version that did not count has no usage. Raises StoreError where the file cannot be read, or
    a newer version wrote it.
    """
    names = [name for one in by for name in COLUMNS[one]]
    values = ", ".join(f"{_VALUES[name]} AS {name}" for name in names)
    order = [name for one in by for name in reversed(COLUMNS[one])]  # keys by name
    if list(by) in ([By.KEY], [By.MODEL]):
        order.insert(0, "sum(input_tokens) + sum(output_tokens) DESC")
    query = (
        f"SELECT {values}, {', '.join(f'sum({name})' for name in SUMS)} FROM usage "
        f"WHERE hour BETWEEN ? AND ? GROUP BY {', '.join(names)} ORDER BY {', '.join(order)}"
    )
    with explained(path):
        found = revision(path)
        if found is None or found < _FIRST_WITH_USAGE:
            return []
        if found > HEAD:
            raise StoreError(
                f"the key store {path} was written by a newer version of ollama-auth-proxy "
                f"(its schema is {found}, this version knows {HEAD}): upgrade"
            )
        with closing(sqlite3.connect(uri(path, "ro"), uri=True, timeout=BUSY_TIMEOUT)) as connection:
            rows = connection.execute(query, (start, end)).fetchall()
    return [dict(zip((*names, *SUMS), row, strict=True)) for row in rows]
