"""Finds the one credential in a request's header fields. Pure.

RFC 6750 section 2.1 (Bearer), RFC 7617 (Basic; the key is the password), and X-Api-Key as the Anthropic
SDK sends it. A place that is there but empty holds no credential: SDKs send ``Bearer `` when no key is set.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence

from proxy.errors import ProxyError

PLACES = frozenset({b"authorization", b"x-api-key"})
"""The names, in lower case, of the fields in which clients send credentials; none of them goes upstream."""

_CHALLENGE = b'Bearer realm="ollama-auth-proxy"'
_ASK = ((b"WWW-Authenticate", _CHALLENGE),)
_REFUSE = ((b"WWW-Authenticate", _CHALLENGE + b', error="invalid_token"'),)


def missing() -> ProxyError:
    return ProxyError(
        "missing_credentials",
        "no credentials: send your key as 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'",
        headers=_ASK,
    )


def invalid() -> ProxyError:
    """One answer for unknown, revoked, wrong and unreadable, so that nobody can tell them apart."""
    return ProxyError(
        "invalid_credentials",
        "these credentials are not valid: check the key, or ask the operator for a new one",
        headers=_REFUSE,
    )


def expired() -> ProxyError:
    return ProxyError(
        "expired_credentials", "this key has expired: ask the operator for a new one", headers=_REFUSE
    )


def find(fields: Sequence[tuple[bytes, bytes]], single: Mapping[bytes, bytes]) -> bytes:
    """The credential that the fields (names in lower case) hold, as it was sent; it may be anything.

    ``single`` are the same fields by name; of a repeated one, the last.

    Raises ProxyError: ``missing_credentials`` where there is none, ``ambiguous_credentials`` where there
    are two that differ.
    """
    if len(single) == len(fields) and b"x-api-key" not in single:  # the way of nearly every request
        found_at_once = _from_authorization(single.get(b"authorization", b""))
        if not found_at_once:
            raise missing()
        return found_at_once
    found: bytes | None = None
    for name, value in fields:
        if name not in PLACES:
            continue
        presented = _from_authorization(value) if name == b"authorization" else value.strip(b" \t")
        if not presented:
            continue
        if found is not None and found != presented:
            raise ProxyError(
                "ambiguous_credentials",
                "two different credentials in one request: send only one of Authorization and X-Api-Key",
            )
        found = presented
    if found is None:
        raise missing()
    return found


def _from_authorization(value: bytes) -> bytes:
    """The token or password; empty where there is none."""
    value = value.strip(b" \t")
    scheme, _, rest = value.partition(b" ")
    rest = rest.lstrip(b" ")
    match scheme.lower():
        case b"bearer":
            return rest
        case b"basic":
            try:
                user_and_password = binascii.a2b_base64(rest, strict_mode=True)
            except binascii.Error:
                return _unreadable(value)
            return user_and_password.partition(b":")[2]
    return _unreadable(value) if value else b""


def _unreadable(value: bytes) -> bytes:
    """Stands for a credential that is there but of no form that we know; none of ours begins with a blank."""
    return b" " + value
