"""JWTs of two issuers of the run: one signs with RS256 and has a JWKS, one with ES256 and a PEM file."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "ollama"
ALGORITHMS = ("RS256", "ES256")
_KID = "bench"
_LIFETIME = 86_400  # seconds, longer than any run


def issuer(algorithm: str) -> str:
    """What stands in ``iss``."""
    return f"https://{algorithm.lower()}.bench.example"


@cache
def tokens(algorithm: str, count: int) -> tuple[str, ...]:
    """That many tokens, each another one, that may do what the benchmark's key may."""
    header = _segment({"alg": algorithm, "typ": "JWT", "kid": _KID})
    now = int(time.time())
    claims = {"iss": issuer(algorithm), "aud": AUDIENCE, "iat": now, "exp": now + _LIFETIME}
    claims |= {"sub": "bench", "scope": "read inference manage"}
    made = []
    for number in range(count):
        signed = header + b"." + _segment({**claims, "jti": f"{number:08x}"})
        made.append((signed + b"." + _base64url(_sign(algorithm, signed))).decode())
    return tuple(made)


def write_public_keys(directory: Path) -> dict[str, Path]:
    """Write what verifies the tokens: a JWKS for RS256, a PEM file for ES256; returns the files."""
    files = {"RS256": directory / "rs256.json", "ES256": directory / "es256.pem"}
    numbers = _rsa_key().public_key().public_numbers()
    jwk = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": _KID}
    jwk |= {"n": _number(numbers.n), "e": _number(numbers.e)}
    files["RS256"].write_text(json.dumps({"keys": [jwk]}))
    public = _ec_key().public_key()
    files["ES256"].write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return files


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def _ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _sign(algorithm: str, data: bytes) -> bytes:
    if algorithm == "RS256":
        return _rsa_key().sign(data, padding.PKCS1v15(), SHA256())
    r, s = decode_dss_signature(_ec_key().sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)  # RFC 7518 section 3.4


def _segment(value: dict[str, object]) -> bytes:
    return _base64url(json.dumps(value).encode())


def _number(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8)).decode()


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
