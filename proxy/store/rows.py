"""How a key stands in the database: the one query that reads keys, and the way from its rows to ApiKey.

The query is plain SQL text, so that SQLAlchemy runs it for the command line and the bare driver runs it in
the proxy, which then needs no SQLAlchemy in memory (20 MB).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

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


def keys_from_rows(rows: Iterable[Sequence[Any]]) -> dict[str, ApiKey]:
    """The keys in the rows of one of the queries above, by id and in their order.

    A key with several secrets has several rows. Raises StoreError for a row that this version did not write.
    """
    rows_by_id: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        rows_by_id.setdefault(row[0], []).append(row)
    return {key_id: _key(key_rows) for key_id, key_rows in rows_by_id.items()}


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
    key_id, name, kind, scopes, models, cloud, limits, created, expires, last_used, revoked, _ = rows[0]
    try:
        return ApiKey(
            id=key_id,
            name=name,
            kind=kind,
            digests=tuple(bytes(row[-1]) for row in rows if row[-1] is not None),
            scopes=_scopes(scopes),
            models=None if models is None else tuple(json.loads(models)),
            cloud=bool(cloud),
            limits=json.loads(limits),
            created=created,
            expires=expires,
            last_used=last_used,
            revoked=revoked,
        )
    except (TypeError, ValueError) as fault:
        raise StoreError(f"the stored key {key_id} cannot be read: revoke it and create another") from fault


@lru_cache(maxsize=64)
def _scopes(text: str) -> frozenset[str]:
    """Most keys have the same scopes, and share one set."""
    return frozenset(json.loads(text))


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
