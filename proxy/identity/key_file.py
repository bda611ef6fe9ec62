"""Reads an issuer's keys from the file that the configuration names: JWKS, PEM or a secret."""

from __future__ import annotations

import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from proxy.identity.issuer import Issuer
from proxy.identity.key_set import NO_KEYS, KeySet, NoKeysError, from_jwks, from_pem, from_secret

MAX_FILE = 1024 * 1024
"""Bytes."""


class KeyFile:
    """Remembers what it read last, so that a file that has not changed costs no more than its reading."""

    def __init__(self, issuer: Issuer) -> None:
        self._file, self._take = _source(issuer)
        self._digest = b""
        self._keys = NO_KEYS

    def read(self) -> KeySet:
        """The keys in the file as it is now. Raises NoKeysError."""
        try:
            content = _content(self._file)
            digest = sha256(content).digest()
            if digest != self._digest:
                self._keys = self._take(content)
                self._digest = digest
        except OSError as error:
            raise NoKeysError(f"{self._file}: {(error.strerror or 'unknown error').lower()}") from None
        except ValueError as error:
            raise NoKeysError(f"{self._file}: {error}") from None
        return self._keys


def _source(issuer: Issuer) -> tuple[Path, Callable[[bytes], KeySet]]:
    if issuer.jwks_file is not None:
        return issuer.jwks_file, from_jwks
    if issuer.public_key_file is not None:
        return issuer.public_key_file, from_pem
    if issuer.secret_file is not None:
        return issuer.secret_file, from_secret
    raise ValueError(f"the issuer {issuer.issuer} has no source of keys")


def _content(file: Path) -> bytes:
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("not a file")  # a pipe would keep us waiting
    with file.open("rb") as opened:
        content = opened.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"larger than {MAX_FILE} bytes")
    return content
