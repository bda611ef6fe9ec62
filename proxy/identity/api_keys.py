"""API keys: how one is written, made, stored and checked. Pure; the clock and the randomness are arguments.

A key is ``oap_<id>_<secret><checksum>`` in base62: the id is looked up, the secret (256 bits) proves it, and
by the checksum (CRC-32) a scanner for leaked secrets knows a key without asking us. Only the SHA-256 of the
whole text is stored. A slow hash would protect nothing here, since 256 random bits cannot be guessed, and
would make every request with a bad key an attack.
"""

from __future__ import annotations

import hmac
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "oap_"
ID_LENGTH = 10
SECRET_LENGTH = 43  # 62**43 > 2**256
CHECKSUM_LENGTH = 6  # 62**6 > 2**32
KEY_LENGTH = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

DEFAULT_SCOPES = frozenset({"read", "inference"})
"""What a new key may do when nothing else is said."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@ -]{0,62}[A-Za-z0-9._@-])?")
_ID = slice(len(PREFIX), len(PREFIX) + ID_LENGTH)
_NO_DIGESTS = (bytes(32),)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key: whom it names and what it grants. Times are unix seconds; None is "never".

    ``digests`` are the SHA-256 of every text that is accepted for this key. ``models`` None is "all".
    """

    id: str
    name: str
    digests: tuple[bytes, ...] = field(repr=False)
    scopes: frozenset[str]
    created: float
    expires: float | None = None
    kind: str = "api_key"
    models: tuple[str, ...] | None = None
    cloud: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    last_used: float | None = None
    revoked: float | None = None


class Refusal(Enum):
    """Why a presented key is not accepted; the values are the error codes that clients get."""

    INVALID = "invalid_credentials"
    EXPIRED = "expired_credentials"


def generate(random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """The text of a new key, from 64 bytes of ``random_bytes``."""
    key_id = _base62(int.from_bytes(random_bytes(32)) % 62**ID_LENGTH, ID_LENGTH)  # bias below 2**-196
    secret = _base62(int.from_bytes(random_bytes(32)), SECRET_LENGTH)
    text = f"{PREFIX}{key_id}_{secret}"
    return text + _checksum(text)


def digest(key: bytes) -> bytes:
    """What is stored of a key: the SHA-256 of its whole text."""
    return sha256(key).digest()


def issue(
    name: str,
    now: float,
    *,
    scopes: Iterable[str] = DEFAULT_SCOPES,
    expires: float | None = None,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> tuple[str, ApiKey]:
    """A new key: its text, to be shown once, and the record to be stored.

    Raises ValueError where the name is not 1 to 64 letters, digits, blanks and ``. _ @ -``. Names become
    metric labels and fields of the log, so they are plain ASCII: no two can look alike, none can hold a
    line break or a terminal's control sequence. A blank stands at neither end and a dash not in front.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            "the name must be 1 to 64 letters, digits, blanks and . _ @ - "
            "(starting with a letter or digit, not ending with a blank)"
        )
    text = generate(random_bytes)
    key = ApiKey(
        id=text[_ID],
        name=name,
        digests=(digest(text.encode("ascii")),),
        scopes=frozenset(scopes),
        created=now,
        expires=expires,
    )
    return text, key


def verify(keys: Mapping[str, ApiKey], presented: bytes, now: float) -> ApiKey | Refusal:
    """The key whose text was presented, or why it is refused. Never raises.

    An unknown id costs what a known one costs, and a revoked key is answered like an unknown one. That a
    key has expired is told only to those who hold its secret.
    """
    if len(presented) != KEY_LENGTH:
        return Refusal.INVALID
    key = keys.get(presented[_ID].decode("latin-1"))
    actual = sha256(presented).digest()
    matches = False
    for expected in _NO_DIGESTS if key is None else key.digests:
        matches |= hmac.compare_digest(expected, actual)
    if key is None or not matches or key.revoked is not None:
        return Refusal.INVALID
    if key.expires is not None and now >= key.expires:
        return Refusal.EXPIRED
    return key


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode("ascii")), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    """Most significant digit first, padded with zeros to ``length``."""
    digits = []
    for _ in range(length):
        number, remainder = divmod(number, 62)
        digits.append(ALPHABET[remainder])
    return "".join(reversed(digits))
