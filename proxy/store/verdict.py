"""Tells an operator what is to be done about a key that somebody holds in their hand. Pure."""

from __future__ import annotations

from proxy.identity.api_keys import KEY_LENGTH, PREFIX, ApiKey, id_of
from proxy.identity.verdict import Verdict
from proxy.store.listing import rfc3339


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
