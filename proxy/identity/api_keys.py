"""Keys: how one is written, made, stored and checked. Pure; the clock and the randomness are arguments.

A key is ``oap_<id>_<secret><checksum>`` in base62: the id is looked up, the secret (256 bits) proves it, and
by the checksum (CRC-32) a scanner for leaked secrets knows a key without asking us. Only the SHA-256 of the
whole text is stored. A slow hash would protect nothing here, since 256 random bits cannot be guessed, and
would make every request with a bad key an attack.

Beside these there are ssh public keys (kind ``ssh``, see `ssh_signature`), which are stored, named, granted
rights and revoked in the same way.
"""

from __future__ import annotations

import hmac
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256
from typing import NamedTuple, TypedDict, Unpack

from proxy.identity.limits import limits_from

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "oap_"
ID_LENGTH = 10
SECRET_LENGTH = 43  # 62**43 > 2**256
CHECKSUM_LENGTH = 6  # 62**6 > 2**32
KEY_LENGTH = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

DEFAULT_SCOPES = frozenset({"read", "inference"})
"""What a new key may do when nothing else is said."""

API_KEY = "api_key"
"""The kind of a key whose text is sent."""
SSH = "ssh"
"""The kind of a key that signs."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@ -]{0,62}[A-Za-z0-9._@-])?")
_MODEL_PATTERN = re.compile(r"[!-~]{1,300}")
_TEXT = re.compile(r"oap_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}")
_ID = slice(len(PREFIX), len(PREFIX) + ID_LENGTH)


class Secret(NamedTuple):
    """What proves a key: the SHA-256 of a text that is accepted, or of an ssh public key.

    From the unix second ``expires`` on it proves nothing; the key may have others.
    """

    digest: bytes
    expires: float | None = None

    def holds(self, now: float) -> bool:
        return self.expires is None or now < self.expires


_NO_SECRETS = (Secret(bytes(32)),)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key: whom it names and what it grants. Times are unix seconds; None is "never".

    Every one of ``secrets`` proves it. ``models`` None is "all"; ``limits`` are members of `Limits`.
    """

    id: str
    name: str
    secrets: tuple[Secret, ...] = field(repr=False)
    scopes: frozenset[str]
    created: float
    expires: float | None = None
    kind: str = API_KEY
    models: tuple[str, ...] | None = None
    cloud: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    last_used: float | None = field(default=None, compare=False)  # a key that was used is still the same
    revoked: float | None = None


class Grants(TypedDict, total=False):
    """What a key may do and for how long, as `issue` and `granted` take it; what is left out stays."""

    scopes: Iterable[str]
    models: Iterable[str] | None
    cloud: bool
    limits: Mapping[str, int]
    expires: float | None


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
    random_bytes: Callable[[int], bytes] = os.urandom,
    **grants: Unpack[Grants],
) -> tuple[str, ApiKey]:
    """A new key: its text, to be shown once, and the record to be stored.

    Without ``grants`` it has the default scopes, every local model, and no end.

    Raises ValueError where the name is not 1 to 64 letters, digits, blanks and ``. _ @ -``, or a grant makes
    no sense (see `granted`). Names become metric labels and fields of the log, so they are plain ASCII: no
    two can look alike, none can hold a line break or a terminal's control sequence. A blank stands at
    neither end and a dash not in front.
    """
    text = generate(random_bytes)
    return text, _record(text[_ID], API_KEY, digest(text.encode("ascii")), name, now, grants)


def issue_ssh(
    name: str,
    blob: bytes,
    now: float,
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
    **grants: Unpack[Grants],
) -> ApiKey:
    """The record of a key that signs; ``blob`` is its public key (see `ssh_signature.parse_public_key`).

    Raises ValueError as `issue` does.
    """
    return _record(generate(random_bytes)[_ID], SSH, digest(blob), name, now, grants)


def reissue(key_id: str, random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """Another text for the key with this id, from 32 bytes of ``random_bytes``."""
    text = f"{PREFIX}{key_id}_{_base62(int.from_bytes(random_bytes(32)), SECRET_LENGTH)}"
    return text + _checksum(text)


def granted(key: ApiKey, **grants: Unpack[Grants]) -> ApiKey:
    """The key with other rights. Of ``limits`` only those named change, and 0 removes one.

    Raises ValueError where a pattern for models is none, or the limits contradict each other.
    """
    changed = replace(key, **grants)  # type: ignore[arg-type]
    models = None if changed.models is None else tuple(changed.models)
    for pattern in models or ():
        if not is_model_pattern(pattern):
            raise ValueError(
                "a pattern for models must be 1 to 300 printable ASCII characters without blanks"
            )
    limits = {name: limit for name, limit in {**key.limits, **changed.limits}.items() if limit != 0}
    bounds = limits_from(limits)
    if (bounds.min_keep_alive or 0) > (bounds.max_keep_alive or float("inf")):
        raise ValueError("the shortest keep_alive allowed would be longer than the longest")
    return replace(changed, scopes=frozenset(changed.scopes), models=models, limits=limits)


def is_model_pattern(text: str) -> bool:
    """Whether it can stand in a list of models; what it means is `proxy.policy`'s to say."""
    return _MODEL_PATTERN.fullmatch(text) is not None


class Form(Enum):
    """What a text looks like, whatever keys there are; for operators, never told to the network."""

    KEY = "key"
    MISTYPED = "mistyped"
    """The form is that of a key, the checksum is not."""
    OTHER = "other"


def classify(text: str) -> Form:
    if not _TEXT.fullmatch(text):
        return Form.OTHER
    return Form.KEY if _checksum(text[:-CHECKSUM_LENGTH]) == text[-CHECKSUM_LENGTH:] else Form.MISTYPED


def id_of(text: str) -> str:
    """The id in the text of a key."""
    return text[_ID]


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
    for secret in _NO_SECRETS if key is None else key.secrets:
        matches |= hmac.compare_digest(secret.digest, actual) & secret.holds(now)
    if key is None or not matches or key.kind != API_KEY or key.revoked is not None:
        return Refusal.INVALID
    if key.expires is not None and now >= key.expires:
        return Refusal.EXPIRED
    return key


def _record(key_id: str, kind: str, secret: bytes, name: str, now: float, grants: Grants) -> ApiKey:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "the name must be 1 to 64 letters, digits, blanks and . _ @ - "
            "(starting with a letter or digit, not ending with a blank)"
        )
    return granted(ApiKey(key_id, name, (Secret(secret),), DEFAULT_SCOPES, now, kind=kind), **grants)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode("ascii")), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    """Most significant digit first, padded with zeros to ``length``."""
    digits = []
    for _ in range(length):
        number, remainder = divmod(number, 62)
        digits.append(ALPHABET[remainder])
    return "".join(reversed(digits))
