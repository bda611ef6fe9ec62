"""Makes tokens as an issuer would, and as nobody should; without python-jose, which is what is tried."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.identity.issuer import Issuer
from proxy.identity.jwt import TokenVerifier
from proxy.identity.key_set import KeySet, from_jwks, from_secret

NOW = 1_800_000_000.0
NAME = "https://issuer.example/realms/main"
AUDIENCE = "ollama"
SECRET = bytes(range(64))
ANY_FILE = Path("keys")
"""Where no file is read."""

_HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
_CURVE_NAMES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512"]

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | bytes


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def unb64(text: bytes) -> bytes:
    return urlsafe_b64decode(text + b"==")


def number(value: int, length: int | None = None) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8)).decode()


def claims(**changes: object) -> dict[str, object]:
    """Good ones, with the changes; a claim that is set to ``...`` is left out."""
    good: dict[str, object] = {
        "iss": NAME,
        "aud": AUDIENCE,
        "exp": NOW + 300,
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "sub": "alice",
        "scope": "openid read inference",
    } | changes
    return {name: value for name, value in good.items() if value is not ...}


@dataclass(frozen=True)
class Signer:
    """A key of an issuer."""

    algorithm: str
    key: Private = field(repr=False)
    kid: str | None = "key-1"

    def sign(self, message: bytes, algorithm: str = "") -> bytes:
        algorithm = algorithm or self.algorithm
        digest = _HASHES[algorithm[2:]]()
        if isinstance(self.key, bytes):
            return hmac.digest(self.key, message, "sha" + algorithm[2:])
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(message, padding.PKCS1v15(), digest)
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(digest)))
        length = (self.key.key_size + 7) // 8
        return r.to_bytes(length) + s.to_bytes(length)

    def header(self, **changes: object) -> dict[str, object]:
        good: dict[str, object] = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid} | changes
        return {name: value for name, value in good.items() if value not in (None, ...)}

    def token(self, payload: Mapping[str, object] | None = None, **header: object) -> bytes:
        """Signed with all that it holds, so that only what was changed can be wrong."""
        document = json.dumps(claims() if payload is None else payload).encode()
        return self.raw(json.dumps(self.header(**header)).encode(), document)

    def raw(self, header: bytes, payload: bytes) -> bytes:
        return self.segments(b64(header), b64(payload))

    def segments(self, header: bytes, payload: bytes) -> bytes:
        message = header + b"." + payload
        return message + b"." + b64(self.sign(message))

    def public(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        assert not isinstance(self.key, bytes)
        return self.key.public_key()

    def pem(self) -> bytes:
        return self.public().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def jwk(self, **changes: object) -> dict[str, object]:
        public = self.public()
        found: dict[str, object] = {"kid": self.kid, "use": "sig"}
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            found |= {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        else:
            point, length = public.public_numbers(), (public.key_size + 7) // 8
            found |= {"kty": "EC", "crv": _CURVE_NAMES[self.algorithm]}
            found |= {"x": number(point.x, length), "y": number(point.y, length)}
        return {name: value for name, value in (found | changes).items() if value not in (None, ...)}


@cache
def signer(algorithm: str = "RS256", kid: str | None = "key-1", number: int = 1) -> Signer:
    """The same for the same arguments, since RSA keys take long to make."""
    key: Private = SECRET
    if algorithm.startswith("RS"):
        key = _rsa_key(number)
    elif algorithm.startswith("ES"):
        key = ec.generate_private_key(_CURVES[algorithm]())
    return Signer(algorithm, key, None if algorithm.startswith("HS") else kid)


@cache
def _rsa_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def jwks(*keys: Mapping[str, object] | object) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def issuer(algorithm: str = "RS256", **changes: object) -> Issuer:
    """One whose keys are in a file, unless the changes say otherwise."""
    source = "secret_file" if algorithm.startswith("HS") else "jwks_file"
    remote = bool(changes.keys() & {"jwks_url", "discovery", "public_key_file"})
    settings: dict[str, object] = {} if remote else {source: ANY_FILE}
    settings |= {"issuer": NAME, "audiences": frozenset({AUDIENCE}), "algorithms": frozenset({algorithm})}
    return Issuer(**(settings | changes))  # type: ignore[arg-type]


def key_set(*signers: Signer) -> KeySet:
    if isinstance(signers[0].key, bytes):
        return from_secret(signers[0].key)
    return from_jwks(jwks(*(one.jwk() for one in signers)))


def verifier(*signers: Signer, **settings: object) -> TokenVerifier:
    """Knows one issuer with the keys of the signers."""
    signers = signers or (signer(),)
    one = issuer(signers[0].algorithm, **settings)
    found = TokenVerifier([one])
    found.replace_keys(one, key_set(*signers))
    return found
