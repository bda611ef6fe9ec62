"""Stored keys as people and scripts read them: JSON members and aligned text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from proxy.identity.api_keys import ApiKey

_HEADINGS = ("ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "STATE")


def members(key: ApiKey) -> dict[str, object]:
    """The members of the JSON object for a key, without its secret; times are RFC 3339 in UTC or None."""
    return {
        "id": key.id,
        "name": key.name,
        "kind": key.kind,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else list(key.models),
        "cloud": key.cloud,
        "limits": dict(key.limits),
        "created": rfc3339(key.created),
        "expires": rfc3339(key.expires),
        "last_used": rfc3339(key.last_used),
        "revoked": rfc3339(key.revoked),
    }


def table(keys: Iterable[ApiKey], now: float) -> str:
    """One line a key under a line of headings, columns aligned."""
    rows = [_HEADINGS]
    for key in keys:
        scopes, created, expires = ",".join(sorted(key.scopes)), rfc3339(key.created), rfc3339(key.expires)
        rows.append((key.id, key.name, scopes, created or "-", expires or "never", state(key, now)))
    return _aligned(rows)


def details(key: ApiKey, now: float) -> str:
    """One line a property of a key."""
    return _aligned(
        [
            ("id", key.id),
            ("name", key.name),
            ("kind", key.kind),
            ("scopes", ",".join(sorted(key.scopes))),
            ("created", rfc3339(key.created) or "-"),
            ("expires", rfc3339(key.expires) or "never"),
            ("revoked", rfc3339(key.revoked) or "no"),
            ("state", state(key, now)),
        ]
    )


def state(key: ApiKey, now: float) -> str:
    if key.revoked is not None:
        return "revoked"
    if key.expires is not None and now >= key.expires:
        return "expired"
    return "active"


def rfc3339(time: float | None) -> str | None:
    """Unix seconds as ``2026-01-31T12:00:00Z``."""
    return None if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
