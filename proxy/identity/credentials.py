"""Finds the one credential in a request. Pure.

RFC 6750 section 2.1 (Bearer), RFC 7617 (Basic; the key is the password), X-Api-Key as the Anthropic SDK
sends it, the signature of the ``ollama`` command, which has no scheme, and a key in the path where the
operator allows it. A place that is there but empty holds no credential: SDKs send ``Bearer `` when no key
is set.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from enum import Enum

from proxy.errors import ProxyError

PLACES = frozenset({b"authorization", b"x-api-key"})
"""The names, in lower case, of the fields in which clients send credentials; none of them goes upstream."""

PATH_PREFIX = b"/~"

_CHALLENGE = b'Bearer realm="ollama-auth-proxy"'
# Claude Code tries a refused credential ten times more, for minutes, unless it is told not to.
_NO_RETRY = (b"x-should-retry", b"false")
_ASK = ((b"WWW-Authenticate", _CHALLENGE), _NO_RETRY)
_REFUSE = ((b"WWW-Authenticate", _CHALLENGE + b', error="invalid_token"'), _NO_RETRY)

_SIGNATURE = re.compile(rb"[A-Za-z0-9+/]+={0,2}:[A-Za-z0-9+/]+={0,2}")
_JWT = re.compile(rb"ey[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


class Place(Enum):
    """Where a credential stood; the values are how refusals name it."""

    BEARER = "Authorization"
    BASIC = "Authorization (Basic)"
    SIGNATURE = "Authorization (signature)"
    API_KEY = "X-Api-Key"
    PATH = "the path"


BEARER, BASIC, SIGNATURE, API_KEY, PATH = Place  # found faster than on the class, for every request

Credential = tuple[bytes, Place]
"""A key, token or signature as it was sent, which may be anything, and where it stood."""


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


def too_many_failures(per_minute: int, wait: int) -> ProxyError:
    """Said in place of `invalid` to addresses from which too many bad credentials came; ``wait`` seconds."""
    return ProxyError(
        "too_many_failures",
        "too many bad credentials came from this address: check the key, and wait before the next try",
        headers=(
            (b"Retry-After", b"%d" % wait),
            (b"RateLimit-Policy", b'"failures";q=%d;w=60' % per_minute),
            (b"RateLimit", b'"failures";r=0;t=%d' % wait),
        ),
    )


def split_path(target: bytes) -> tuple[bytes, bytes] | None:
    """The key and the rest of a target that begins with ``/~<key>``; None where it does not.

    ``/~<key>`` alone is ``/``, as a base URL without a final slash.
    """
    if not target.startswith(PATH_PREFIX):
        return None
    path, mark, query = target[len(PATH_PREFIX) :].partition(b"?")
    key, _, rest = path.partition(b"/")
    return (key, b"/" + rest + mark + query) if key else None


def find(
    fields: Sequence[tuple[bytes, bytes]], single: Mapping[bytes, bytes], path_key: bytes | None = None
) -> Credential | None:
    """The credential that a request holds, or None.

    ``fields`` have names in lower case, ``single`` are the same by name (of a repeated one, the last);
    ``path_key`` is what stood in the path. Beside that, a field counts only where it looks like one of our
    credentials: those clients that need the path send some ``api_key`` anyway.

    Raises ProxyError ``ambiguous_credentials`` where there are two, unless they are the same key or token.
    """
    if path_key is None and len(single) == len(fields) and b"x-api-key" not in single:
        return _from_authorization(single.get(b"authorization", b""))  # the way of nearly every request
    found = (path_key, PATH) if path_key else None
    for name, value in fields:
        if name not in PLACES:
            continue
        presented = _from_authorization(value) if name == b"authorization" else (value.strip(b" \t"), API_KEY)
        if presented is None or not presented[0] or (path_key and not _is_ours(presented)):
            continue
        if found is None:
            found = presented
        elif found[0] != presented[0] or SIGNATURE in (found[1], presented[1]):
            raise ProxyError(
                "ambiguous_credentials",
                f"two credentials in one request, in {found[1].value} and {presented[1].value}:"
                " send only one",
            )
        elif presented[1] is BEARER:
            found = presented
    return found


def _is_ours(credential: Credential) -> bool:
    """Whether it could be meant for this proxy."""
    value, place = credential
    return (
        place is SIGNATURE
        or value.startswith(b"oap_")
        or (place is BEARER and _JWT.fullmatch(value) is not None)
    )


def _from_authorization(value: bytes) -> Credential | None:
    value = value.strip(b" \t")
    scheme, _, rest = value.partition(b" ")
    rest = rest.lstrip(b" ")
    match scheme.lower():
        case b"bearer":
            return (rest, BEARER) if rest else None
        case b"basic":
            try:
                user_and_password = binascii.a2b_base64(rest, strict_mode=True)
            except binascii.Error:
                return _unreadable(value)
            password = user_and_password.partition(b":")[2]
            return (password, BASIC) if password else None
    if _SIGNATURE.fullmatch(value):
        return (value, SIGNATURE)
    return _unreadable(value) if value else None


def _unreadable(value: bytes) -> Credential:
    """Stands for a credential that is there but of no form that we know; none of ours begins with a blank."""
    return b" " + value, BEARER
