"""What the claims of a proved token say: until when it holds, and what it grants, by its issuer's settings.

Pure. Whatever is missing or of another form than it should be grants nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard

from proxy.identity.api_keys import is_model_pattern
from proxy.identity.identity import Identity
from proxy.identity.issuer import Issuer
from proxy.identity.limits import NO_LIMITS, Limits, limits_from

SCOPES = frozenset({"read", "inference", "manage", "push", "account"})
"""What a JWT can grant; ``admin`` is only for keys that the operator made here."""

_MISSING = object()
_NO_SCOPES: frozenset[str] = frozenset()
_SEPARATORS = re.compile("[ ,]+")
# The rule for the names of API keys (see api_keys.issue), and what providers put into subjects besides.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@|:/+= -]{0,62}[A-Za-z0-9._@|:/+=-])?")

MAX_PATTERNS = 100
"""Patterns of models in one token."""


def end_of(claims: Mapping[str, object], issuer: Issuer, now: float) -> float | None:
    """``exp``, in unix seconds, of a token that is for us and holds now; else None (RFC 7519 section 4.1).

    On the second of ``exp`` it has ended. The leeway is for clocks that differ, and is allowed beyond each
    of the three times.
    """
    audience = claims.get("aud")
    audiences = [audience] if type(audience) is str else audience
    if type(audiences) is not list or any(type(one) is not str for one in audiences):
        return None
    if issuer.audiences.isdisjoint(audiences):
        return None
    for name in ("nbf", "iat"):
        begins = claims.get(name, 0)
        if not _is_number(begins) or now < begins - issuer.leeway:
            return None
    ends = claims.get("exp")
    if not _is_number(ends) or now >= ends + issuer.leeway:
        return None
    return float(ends)


def identity_from(claims: Mapping[str, object], issuer: Issuer) -> Identity:
    """The caller whom the claims name, with what they grant."""
    scopes, limits = _scopes(claims, issuer), NO_LIMITS
    if issuer.limits_claim:
        told = _limits(_claim(claims, issuer.limits_claim))
        if told is None:
            scopes = _NO_SCOPES  # whoever should be limited must not become unlimited by a typing error
        else:
            limits = told
    return Identity(
        auth="jwt",
        key_id=None,
        key_name=_name(_claim(claims, issuer.name_claim)) if issuer.name_claim else None,
        scopes=scopes & SCOPES,
        models=_models(_claim(claims, issuer.models_claim)) if issuer.models_claim else None,
        cloud=bool(issuer.cloud_claim) and _claim(claims, issuer.cloud_claim) is True,
        limits=limits,
    )


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float)  # and no bool


def _claim(claims: Mapping[str, object], name: str) -> object:
    """The claim of that very name, else the one that its parts lead to: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return _MISSING
        found = found.get(part, _MISSING)
    return found


def _scopes(claims: Mapping[str, object], issuer: Issuer) -> frozenset[str]:
    value = _claim(claims, issuer.scope_claim) if issuer.scope_claim else _MISSING
    if value is _MISSING:
        return issuer.default_scopes
    if isinstance(value, str):
        return frozenset(value.split(" "))  # RFC 8693 section 4.2
    if isinstance(value, list):
        return frozenset(word for word in value if isinstance(word, str))
    return _NO_SCOPES


def _models(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _SEPARATORS.split(value)
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        return ()
    patterns = tuple(dict.fromkeys(filter(None, value)))
    # Each is compiled for the event loop, and one that is no pattern could mean anything.
    return patterns if len(patterns) <= MAX_PATTERNS and all(map(is_model_pattern, patterns)) else ()


def _limits(value: object) -> Limits | None:
    if not isinstance(value, dict):
        return None
    try:
        return limits_from(value)
    except ValueError:
        return None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None
