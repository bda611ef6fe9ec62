"""How a key stands in the database: the one query that reads keys, and the way from its rows to ApiKey.

The query is plain SQL text, so that SQLAlchemy runs it for the command line and the bare driver runs it in
the proxy, which then needs no SQLAlchemy in memory (20 MB).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from proxy.identity.api_keys import ApiKey
from proxy.store.errors import StoreError

_SELECT = """
SELECT keys.id, keys.name, keys.kind, keys.scopes, keys.models, keys.cloud, keys.limits,
       keys.created, keys.expires, keys.last_used, keys.revoked, key_secrets.digest
FROM keys LEFT JOIN key_secrets ON key_secrets.key_id = keys.id
{where}
ORDER BY keys.created, keys.name, keys.id, key_secrets.created
"""

ALL = _SELECT.format(where="")
USABLE = _SELECT.format(where="WHERE keys.revoked IS NULL")
ONE = _SELECT.format(where="WHERE keys.id = :id")


_LATEST = 253_402_300_799  # 9999-12-31T23:59:59Z; there are no later dates to show


class Found(NamedTuple):
    """``keys`` by id, and the ids of those that cannot be read: rows that no version of ours wrote."""

    keys: dict[str, ApiKey]
    unreadable: tuple[str, ...]

    @property
    def fault(self) -> StoreError | None:
        """What is said of the keys that cannot be read; None where there are none."""
        match self.unreadable:
            case ():
                return None
            case (key_id,):
                return StoreError(f"the stored key {key_id} cannot be read: revoke it and create another")
            case key_ids:
                ids = ", ".join(key_ids)
                return StoreError(f"the stored keys {ids} cannot be read: revoke them and create others")


def keys_from_rows(rows: Iterable[Sequence[Any]]) -> Found:
    """The keys in the rows of one of the queries above, in their order.

    A key with several secrets has several rows. One that cannot be read does not keep the others from use,
    else nobody could revoke those.
    """
    rows_by_id: dict[Any, list[Sequence[Any]]] = {}
    for row in rows:
        rows_by_id.setdefault(row[0], []).append(row)
    keys: dict[str, ApiKey] = {}
    unreadable: list[str] = []
    for key_id, key_rows in rows_by_id.items():
        try:
            keys[key_id] = _key(key_rows)
        except (ValueError, RecursionError):  # RecursionError: lists within lists within lists
            unreadable.append(printable(key_id))
    return Found(keys, tuple(unreadable))


def printable(value: object) -> str:
    """Text of the database that can be shown; what else may stand there is shown in ASCII, with escapes."""
    return value if isinstance(value, str) and value.isascii() and value.isprintable() else ascii(value)


def values_of(key: ApiKey) -> dict[str, Any]:
    """The columns of the table ``keys`` for a key; its digests belong to ``key_secrets``."""
    return {
        "id": key.id,
        "name": key.name,
        "kind": key.kind,
        "scopes": json.dumps(sorted(key.scopes)),
        "models": None if key.models is None else json.dumps(key.models),
        "cloud": key.cloud,
        "limits": json.dumps(dict(key.limits), sort_keys=True),
        "created": int(key.created),
        "expires": _seconds(key.expires),
        "last_used": _seconds(key.last_used),
        "revoked": _seconds(key.revoked),
    }


def _key(rows: list[Sequence[Any]]) -> ApiKey:
    """Raises ValueError and RecursionError. SQLite keeps any type in any column, so all are checked."""
    key_id, name, kind, scopes, models, cloud, limits, created, expires, last_used, revoked, _ = rows[0]
    return ApiKey(
        id=_word(key_id),
        name=_word(name),
        kind=_word(kind),
        digests=tuple(_digest(row[-1]) for row in rows if row[-1] is not None),
        scopes=_scopes(scopes),
        models=None if models is None else tuple(_texts(models)),
        cloud=bool(_number(cloud, 1)),
        limits=_limits(limits),
        created=_number(created),
        expires=_time(expires),
        last_used=_time(last_used),
        revoked=_time(revoked),
    )


def _word(value: object) -> str:
    """Ids, names and kinds stand in logs and metrics, so they are ASCII without control characters."""
    if not isinstance(value, str) or printable(value) != value:
        raise ValueError("not a line of ASCII")
    return value


def _digest(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 32:
        raise ValueError("not a SHA-256")
    return value


def _number(value: object, most: int = _LATEST) -> int:
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError("not a number in its range")
    return value


def _time(value: object) -> int | None:
    return None if value is None else _number(value)


@lru_cache(maxsize=64)
def _scopes(text: object) -> frozenset[str]:
    """Most keys have the same scopes, and share one set."""
    return frozenset(_texts(text))


def _texts(text: object) -> list[str]:
    found = _json(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("not a list of texts")
    return found


def _limits(text: object) -> dict[str, int]:
    found = _json(text)
    if not isinstance(found, dict) or not all(type(limit) is int for limit in found.values()):
        raise ValueError("not an object of whole numbers")
    return found


def _json(text: object) -> object:
    if not isinstance(text, str):
        raise ValueError("not text")
    return json.loads(text)


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
