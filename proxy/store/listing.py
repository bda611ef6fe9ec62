"""Stored keys as people and scripts read them: JSON members and aligned text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from proxy.identity.api_keys import SSH, ApiKey
from proxy.identity.limits import Limits, limits_from
from proxy.identity.ssh_signature import fingerprint

_HEADINGS = (
    "ID",
    "NAME",
    "KIND",
    "SCOPES",
    "MODELS",
    "CLOUD",
    "LIMITS",
    "CREATED",
    "EXPIRES",
    "LAST USED",
    "STATE",
)
_MODELS_WIDTH = 40  # characters in the table; a key may have many patterns, and `details` shows them all
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


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
        rows.append(
            (
                key.id,
                key.name,
                key.kind,
                _joined(key.scopes),
                _shortened(key.models),
                _yes_or_no(key.cloud),
                _joined(key.limits),
                rfc3339(key.created) or "-",
                rfc3339(key.expires) or "never",
                rfc3339(key.last_used) or "never",
                state(key, now),
            )
        )
    return _aligned(rows)


def details(key: ApiKey, now: float) -> str:
    """One line a property of a key."""
    rows = [("id", key.id), ("name", key.name), ("kind", key.kind)]
    if key.kind == SSH:
        rows += [("fingerprint", fingerprint(secret.digest)) for secret in key.secrets]
    rows += [
        ("scopes", _joined(key.scopes)),
        ("models", "all" if key.models is None else ", ".join(key.models) or "none"),
        ("cloud", _yes_or_no(key.cloud)),
        *(("limit", limit) for limit in limits_in_words(limits_from(key.limits))),
        ("created", rfc3339(key.created) or "-"),
        ("expires", rfc3339(key.expires) or "never"),
        ("last used", rfc3339(key.last_used) or "never"),
        ("revoked", rfc3339(key.revoked) or "no"),
        ("state", state(key, now)),
    ]
    rows += [
        ("old secret", f"holds until {rfc3339(secret.expires)}")
        for secret in key.secrets
        if secret.expires is not None and secret.holds(now)
    ]
    return _aligned(rows)


def rights(key: ApiKey) -> str:
    """What a key may do, in one line."""
    parts = [
        f"scopes: {_joined(key.scopes)}",
        f"models: {_shortened(key.models)}",
        f"cloud: {_yes_or_no(key.cloud)}",
        *limits_in_words(limits_from(key.limits)),
        f"expires: {rfc3339(key.expires) or 'never'}",
    ]
    return "; ".join(parts)


def limits_in_words(limits: Limits) -> list[str]:
    """One phrase a limit."""
    phrases = []
    if limits.max_context is not None:
        phrases.append(f"context of at most {limits.max_context} tokens")
    if limits.max_output_tokens is not None:
        phrases.append(f"answers of at most {limits.max_output_tokens} tokens")
    if limits.min_keep_alive is not None:
        phrases.append(f"keep_alive of at least {_duration(limits.min_keep_alive)}")
    if limits.max_keep_alive is not None:
        phrases.append(f"keep_alive of at most {_duration(limits.max_keep_alive)}")
    return phrases


def state(key: ApiKey, now: float) -> str:
    if key.revoked is not None:
        return "revoked"
    if key.expires is not None and now >= key.expires:
        return "expired"
    return "active"


def rfc3339(time: float | None) -> str | None:
    """Unix seconds as ``2026-01-31T12:00:00Z``."""
    return None if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(seconds: int) -> str:
    """As the command line takes it, in the largest unit that makes it a whole number."""
    return next(f"{seconds // size}{unit}" for unit, size in _UNITS if seconds % size == 0)


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names)) or "none"


def _shortened(models: Sequence[str] | None) -> str:
    if models is None:
        return "all"
    whole = ",".join(models) or "none"
    return whole if len(whole) <= _MODELS_WIDTH else f"{whole[: _MODELS_WIDTH - 1]}…"


def _yes_or_no(flag: bool) -> str:
    return "yes" if flag else "no"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
