"""What the files that ``[[auth.jwt]]`` names must hold. The keys in them are judged by who will use them.

Every function raises BadValueError. No fault repeats what stands in a file, or its name: people write the
secret itself where its file is asked for.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

from proxy.config.fault import BadValueError
from proxy.config.fields import reason
from proxy.identity.key_set import KeySet, from_jwks, from_pem, from_secret
from proxy.tls import holds_certificates

_LARGEST = 1 << 20
_USABLE = "RSA of 2048 bits or more, or EC on P-256, P-384 or P-521"


def jwks_algorithms(file: Path) -> frozenset[str]:
    """Those that the keys of a JWKS can check (RFC 7517 section 5)."""
    right = 'name a JWKS as the issuer publishes it, a JSON object with a list "keys"'
    content = _content(file, right)
    try:
        keys = from_jwks(content)
    except ValueError:
        raise BadValueError("the file is not a JWKS", right) from None
    if any({"d", "k"} & key.keys() for key in json.loads(content)["keys"] if isinstance(key, dict)):
        right = "leave that with the issuer, and name the set of its public keys"
        raise BadValueError("the file holds a private key or a shared secret", right)
    if not keys.keys:
        raise BadValueError("the file holds no public key for signatures that can be used", f"use {_USABLE}")
    return _algorithms(keys)


def public_key_algorithms(file: Path) -> frozenset[str]:
    """Those that the one public key of a PEM file can check."""
    right = f'name a file that begins with "-----BEGIN PUBLIC KEY-----": {_USABLE}'
    content = _content(file, right)
    if b"PRIVATE KEY-----" in content:
        right = "leave it with the issuer, and name its public half: openssl pkey -in FILE -pubout"
        raise BadValueError("the file holds a private key", right)
    if b"BEGIN CERTIFICATE-----" in content:
        right = "name the public key in it: openssl x509 -in FILE -noout -pubkey"
        raise BadValueError("the file holds a certificate", right)
    if content.count(b"-----BEGIN ") > 1:
        # Without names for them nothing would tell which one a token means.
        raise BadValueError("the file holds more than one key", "name them in a JWKS, by jwks_file")
    try:
        return _algorithms(from_pem(content))
    except ValueError:
        raise BadValueError("the file holds no public key that can be used", right) from None


def secret_algorithms(file: Path) -> frozenset[str]:
    """Those that a shared secret is long enough for."""
    right = "name a file that holds the secret, alone; make one with: openssl rand -hex 64"
    content = _content(file, right)
    try:
        return _algorithms(from_secret(content))
    except ValueError as error:
        raise BadValueError(f"the file holds {error}", right) from None


def check_authorities(file: Path) -> None:
    """The certificates of private authorities."""
    right = "name a PEM file with the certificate of the authority that signed that of the issuer"
    _content(file, right)
    if not holds_certificates(file):
        raise BadValueError("the file holds no readable certificate", right)


def _content(file: Path, right: str) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise BadValueError("this is not a file", right)  # a pipe would keep us waiting
        with file.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise BadValueError(f"the file cannot be read: {reason(error)}", right) from None
    if len(content) > _LARGEST:
        raise BadValueError("the file is larger than 1MiB", right)
    return content


def _algorithms(keys: KeySet) -> frozenset[str]:
    return frozenset(name for key in keys.keys for name in key.signature_lengths)
