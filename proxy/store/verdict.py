"""Says of a text whether it is a good key, and if not, why not. Pure, and for operators only.

Clients are told far less: to them unknown, revoked and wrong look the same.
"""

from __future__ import annotations

import hmac
from enum import Enum

from proxy.identity.api_keys import API_KEY, KEY_LENGTH, PREFIX, ApiKey, Form, classify, digest, id_of
from proxy.store.listing import rfc3339


class Verdict(Enum):
    """The values stand in JSON."""

    GOOD = "good"
    NO_KEY = "no_key"
    MISTYPED = "mistyped"
    UNKNOWN = "unknown"
    WRONG_SECRET = "wrong_secret"
    REPLACED = "replaced"
    REVOKED = "revoked"
    EXPIRED = "expired"


def judge(text: str, key: ApiKey | None, now: float) -> Verdict:
    """``key`` is the stored one with the id in ``text``, where there is one."""
    match classify(text):
        case Form.OTHER:
            return Verdict.NO_KEY
        case Form.MISTYPED:
            return Verdict.MISTYPED
    if key is None:
        return Verdict.UNKNOWN
    presented = digest(text.encode("ascii"))
    matching = [secret for secret in key.secrets if hmac.compare_digest(secret.digest, presented)]
    if key.kind != API_KEY or not matching:
        return Verdict.WRONG_SECRET
    if key.revoked is not None:
        return Verdict.REVOKED
    if not any(secret.holds(now) for secret in matching):
        return Verdict.REPLACED
    if key.expires is not None and now >= key.expires:
        return Verdict.EXPIRED
    return Verdict.GOOD


def in_words(verdict: Verdict, text: str, key: ApiKey | None) -> str:
    """One sentence, which says what to do and repeats nothing of the text but the id."""
    match verdict:
        case Verdict.GOOD:
            return "good: this key is accepted"
        case Verdict.NO_KEY:
            length = f"; this has {len(text)}" if text.startswith(PREFIX) else ""
            return f"not a key: a key is {PREFIX}, and {KEY_LENGTH} characters in all{length}"
        case Verdict.MISTYPED:
            return "mistyped: the checksum does not fit, so some character is wrong; copy the key again"
    if verdict is Verdict.UNKNOWN or key is None:
        return (
            f"unknown: no key in this store has the id {id_of(text)}; "
            "the key is for another proxy, or the configuration names another store"
        )
    match verdict:
        case Verdict.REVOKED:
            return f"revoked: since {rfc3339(key.revoked)}; 'keys create' makes another"
        case Verdict.EXPIRED:
            return f"expired: since {rfc3339(key.expires)}; 'keys set {key.id} --expires 90d' extends it"
        case Verdict.REPLACED:
            return "replaced: the key was rotated, and its old text holds no more; use the new one"
    return (
        f"wrong secret: there is a key {key.id}, but this is not its text; "
        "it was rotated since, or the store is not the one that made it"
    )
