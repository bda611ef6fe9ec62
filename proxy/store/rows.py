"""How a key stands in the database: the query that reads keys, and the way from its rows to ApiKey.

The query is plain SQL text, so that SQLAlchemy runs it for the command line and the bare driver runs it in
the proxy, which then needs no SQLAlchemy in memory (20 MB).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from proxy.identity.api_keys import ApiKey, Secret, is_model_pattern
from proxy.identity.limits import limits_from
from proxy.store.errors import StoreError

_SELECT = """
SELECT keys.id, keys.name, keys.kind, keys.scopes, keys.models, keys.cloud, keys.limits,
       keys.created, keys.expires, {last_used}, keys.revoked, key_secrets.digest, key_secrets.expires
FROM keys LEFT JOIN key_secrets ON key_secrets.key_id = keys.id
{where}
ORDER BY keys.created, keys.name, keys.id, key_secrets.created, key_secrets.digest
"""

ALL = _SELECT.format(last_used="keys.last_used", where="")
USABLE = _SELECT.format(last_used="keys.last_used", where="WHERE keys.revoked IS NULL")
ONE = _SELECT.format(last_used="keys.last_used", where="WHERE keys.id = :id")
FOLLOWED = _SELECT.format(last_used="NULL", where="WHERE keys.revoked IS NULL")
"""For a running proxy. It writes times of last use itself, and they must not make its keys look changed."""


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
    """The columns of the table ``keys`` for a key; its secrets belong to ``key_secrets``."""
    return {
        "id": key.id,
        "name": key.name,
        "kind": key.kind,
        "scopes": json.dumps(sorted(key.scopes)),
        "models": None if key.models is None else json.dumps(key.models),
        "cloud": key.cloud,
        "limits": json.dumps(dict(key.limits), sort_keys=True),
        "created": int(key.created),
        "expires": whole_seconds(key.expires),
        "last_used": whole_seconds(key.last_used),
        "revoked": whole_seconds(key.revoked),
    }


def whole_seconds(time: float | None) -> int | None:
    return None if time is None else int(time)


def _key(rows: list[Sequence[Any]]) -> ApiKey:
    """Raises ValueError and RecursionError. SQLite keeps any type in any column, so all are checked."""
    key_id, name, kind, scopes, models, cloud, limits, created, expires, last_used, revoked, *_ = rows[0]
    return ApiKey(
        id=_word(key_id),
        name=_word(name),
        kind=_word(kind),
        secrets=tuple(Secret(_digest(row[-2]), _time(row[-1])) for row in rows if row[-2] is not None),
        scopes=_scopes(scopes),
        models=None if models is None else _models(models),
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
    return frozenset(map(_word, _texts(text)))


def _texts(text: object) -> list[str]:
    found = _json(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("not a list of texts")
    return found


def _models(text: object) -> tuple[str, ...]:
    patterns = tuple(_texts(text))
    if not all(map(is_model_pattern, patterns)):
        raise ValueError("not a list of patterns")
    return patterns


def _limits(text: object) -> dict[str, int]:
    found = _json(text)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    limits_from(found)
    return found


def _json(text: object) -> object:
    if not isinstance(text, str):
        raise ValueError("not text")
    return json.loads(text)
