"""Says of a text whether it is a good key, and if not, why not. Pure, and for operators only.

Clients are told far less: to them unknown, revoked and wrong look the same.
"""

from __future__ import annotations

import hmac
from enum import Enum

from proxy.identity.api_keys import API_KEY, ApiKey, Form, classify, digest


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
