"""An issuer of JWTs that changes its signing key, and says so in a JWKS file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jose import jwk, jwt

ISSUER = "https://soak.example"
AUDIENCE = "ollama"
_LIFETIME = 7200
"""Seconds, longer than any run."""


class _Signer(NamedTuple):
    kid: str
    private: str
    public: dict[str, object]


class Issuer:
    """Signs with its newest key. ``file`` is the JWKS, which the proxy follows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._made = 0
        self._signers = [self._make()]
        self._publish()

    def token(self, lifetime: int = _LIFETIME) -> str:
        """A token of the newest key; a negative ``lifetime`` in seconds makes one that has ended."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "iat": now - 3600, "exp": now + lifetime}
        claims |= {"sub": "soak", "scope": "read inference manage", "jti": os.urandom(8).hex()}
        signer = self._signers[-1]
        made: str = jwt.encode(claims, signer.private, algorithm="RS256", headers={"kid": signer.kid})
        return made

    def announce(self) -> None:
        """Publish a new key beside the one in use; `token` signs with the old one until `change`."""
        self._signers.insert(0, self._make())
        self._publish()

    def change(self) -> None:
        """Sign with the key that was announced."""
        self._signers.reverse()

    def withdraw(self) -> None:
        """Publish only the key in use."""
        del self._signers[:-1]
        self._publish()

    def _make(self) -> _Signer:
        self._made += 1
        key = rsa.generate_private_key(65537, 2048)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        kid = f"soak-{self._made}"
        members = {name: _text(value) for name, value in jwk.construct(public, "RS256").to_dict().items()}
        return _Signer(kid, private, {**members, "kid": kid, "use": "sig"})

    def _publish(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"keys": [signer.public for signer in self._signers]}))
        new.replace(self._file)


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value
