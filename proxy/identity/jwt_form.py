"""The form of a JWT: compact JWS (RFC 7515 section 7.1) in the one spelling that it has. Pure.

What python-jose lets through is refused here, before it sees the token: base64 in any other spelling
(padding, the + and / alphabet, bits that count for nothing, characters after the end), JSON with two
readings, and header members that it ignores though they change what the token means.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field

from proxy.identity import strict_json

MAX_TOKEN_BYTES = 16 * 1024
MAX_KID_LENGTH = 256
"""Characters."""

MAX_VALUES = 400
"""In the header, and among the claims: some hundred groups are seen, more only serve to keep us busy."""

# RFC 9068 has at+jwt; "application/" may be left out (RFC 7515 section 4.1.9).
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# Keys that the sender chose, extensions that we do not know (RFC 7515 sections 4.1.2 to 4.1.6 and 4.1.11),
# a payload that is no JSON or is a token itself (RFC 7797, RFC 7519 section 5.2), and encryption (RFC 7516).
_REFUSED = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "cty", "enc", "zip"})


@dataclass(frozen=True, slots=True)
class Token:
    """A JWT of sound form. Nothing in it has been proved yet."""

    algorithm: str
    kid: str | None
    claims: dict[str, object] = field(repr=False)
    signature: bytes = field(repr=False)


def read(token: bytes) -> Token:
    """The parts of a token. Raises ValueError where it is not what this module's docstring says."""
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError("too long")
    header_segment, payload_segment, signature_segment = token.split(b".", 3)  # ValueError unless three
    header = _json_object(header_segment)
    algorithm = header.get("alg")
    if type(algorithm) is not str or not _REFUSED.isdisjoint(header):
        raise ValueError("a header that is not accepted")
    typ = header.get("typ", "JWT")
    if type(typ) is not str or typ.lower() not in _TYPES:
        raise ValueError("another type of token")
    kid = header.get("kid")
    if "kid" in header and (type(kid) is not str or len(kid) > MAX_KID_LENGTH):
        raise ValueError("a kid that is not accepted")
    signature = canonical_base64url(signature_segment)
    if not signature:
        raise ValueError("not signed")
    return Token(algorithm, kid if type(kid) is str else None, _json_object(payload_segment), signature)


def canonical_base64url(text: bytes) -> bytes:
    """Decodes base64url without padding (RFC 7515 appendix C); ValueError for any but the one spelling."""
    data = urlsafe_b64decode(text + b"==")  # drops what it does not know, so we look at what it understood
    if urlsafe_b64encode(data).rstrip(b"=") != text:
        raise ValueError("not base64url in its one spelling")
    return data


def _json_object(segment: bytes) -> dict[str, object]:
    value = strict_json.parse(canonical_base64url(segment), MAX_VALUES)
    if type(value) is not dict:
        raise ValueError("not an object")
    return value
