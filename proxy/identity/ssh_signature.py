"""The signatures of the stock ``ollama`` command (``OLLAMA_AUTH=1``). Pure.

It sends ``Authorization: <public key>:<signature>``, both in base64 and without a scheme, and ``?ts=`` with
the unix second. Its ed25519 key (RFC 8032, in the form of RFC 8709) signs ``METHOD,PATH?ts=TS`` and neither
host nor body: for as long as the time is in the window, the same request can be sent again by whoever reads
it, which TLS keeps others from.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from hashlib import sha256

from proxy.identity.api_keys import SSH, ApiKey, Refusal

WINDOW = 60
"""Seconds that a client's clock may be behind or ahead."""

_ALGORITHM = "ssh-ed25519"
_BLOB_HEAD = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"  # RFC 8709 section 4; the 32 bytes of the key follow
_BLOB = len(_BLOB_HEAD) + 32
_BLOB_TEXT = 68  # base64, which needs no padding
_SIGNATURE = 64
_SIGNATURE_TEXT = 88
_TIME = re.compile(rb"ts=(0|[1-9][0-9]{0,11})")

_WANTED = "give a file like ~/.ollama/id_ed25519.pub, one line 'ssh-ed25519 AAAA… comment'"


def parse_public_key(text: str) -> bytes:
    """The bytes that stand in base64 in a line ``ssh-ed25519 AAAA… comment``.

    Raises ValueError, which says what to give instead and repeats nothing of the text.
    """
    line = text.strip()
    if "PRIVATE KEY" in line or line.startswith("PuTTY-User-Key-File"):
        raise ValueError(
            "this is a PRIVATE key, which must stay with its owner; "
            "give the public one, whose file has the same name and ends in .pub"
        )
    if line.startswith("---- BEGIN SSH2"):
        raise ValueError(f"this is not OpenSSH's form ('ssh-keygen -i -f FILE' converts it): {_WANTED}")
    if len(line.splitlines()) > 1:
        raise ValueError(f"there is more than one line: {_WANTED}")
    algorithm, *rest = line.split(maxsplit=2)[:2] or [""]
    if algorithm != _ALGORITHM:
        kind = re.fullmatch(r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]{1,60}", algorithm)
        wrong = "not a public key of OpenSSH"
        if kind:
            wrong = f"keys of the kind {kind[0]} are not taken, only {_ALGORITHM}"
        raise ValueError(f"{wrong}: {_WANTED}")
    blob = _decoded(rest[0].encode("utf-8", "replace"), _BLOB) if rest else None
    if blob is None or not blob.startswith(_BLOB_HEAD):
        raise ValueError(f"the key after '{_ALGORITHM}' is incomplete or damaged: copy the whole line again")
    return blob


def is_time(query: bytes) -> bool:
    """Whether a query is what the command adds to sign it: ``ts=`` and a number, alone."""
    return _TIME.fullmatch(query) is not None


def fingerprint(digest: bytes) -> str:
    """``SHA256:…`` as ``ssh-keygen -l`` prints it, for the SHA-256 of a public key."""
    return "SHA256:" + binascii.b2a_base64(digest, newline=False).decode("ascii").rstrip("=")


def verify(
    keys_by_digest: Mapping[bytes, ApiKey],
    presented: bytes,
    method: str,
    path: bytes,
    query: bytes,
    now: float,
) -> ApiKey | Refusal:
    """The key that signed the request, or why it is refused. Never raises.

    ``keys_by_digest`` are the keys of kind ``ssh`` by the digest of their secret, ``path`` and ``query`` the
    bytes of the request line. The query must be exactly ``ts=``, a whole number. A signature is checked only
    where its key is registered, so that strangers cost no arithmetic; that a key has expired is told only to
    its owner.
    """
    time = _TIME.fullmatch(query)
    if time is None or abs(int(time[1]) - now) > WINDOW:
        return Refusal.INVALID
    if len(presented) != _BLOB_TEXT + 1 + _SIGNATURE_TEXT or presented[_BLOB_TEXT] != ord(":"):
        return Refusal.INVALID
    blob = _decoded(presented[:_BLOB_TEXT], _BLOB)
    signature = _decoded(presented[_BLOB_TEXT + 1 :], _SIGNATURE)
    if blob is None or signature is None:
        return Refusal.INVALID
    digest = sha256(blob).digest()
    key = keys_by_digest.get(digest)
    if key is None or key.kind != SSH or key.revoked is not None:
        return Refusal.INVALID
    if not any(secret.digest == digest and secret.holds(now) for secret in key.secrets):
        return Refusal.INVALID
    signed = method.encode("utf-8", "surrogatepass") + b"," + path + b"?" + query
    if not _is_signed(blob, signature, signed):
        return Refusal.INVALID
    if key.expires is not None and now >= key.expires:
        return Refusal.EXPIRED
    return key


def _decoded(text: bytes, length: int) -> bytes | None:
    """Base64 of ``length`` bytes, in the one spelling that encoding them gives (RFC 4648 section 3.5)."""
    try:
        decoded = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None
    canonical = binascii.b2a_base64(decoded, newline=False) == text
    return decoded if canonical and len(decoded) == length else None


def _is_signed(blob: bytes, signature: bytes, message: bytes) -> bool:
    # Imported with the first signature: it costs 9 MB, which most proxies never need.
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(blob[len(_BLOB_HEAD) :]).verify(signature, message)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
