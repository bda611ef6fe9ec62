"""An issuer's keys, from the forms in which they are given: JWKS (RFC 7517), PEM, a shared secret. Pure.

The only module that knows python-jose, which checks the signatures. It and `cryptography` take 9 MB and
0.1 s to load, so both are imported where they are used: a proxy without issuers never does.

A key that cannot be used safely is left out, and counted: broken, weak, private or secret though it was
published, not for signatures, or of a kind that python-jose has not. A set of public keys never verifies
HMAC, and a secret nothing else, whatever the header of a token says.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from proxy.identity import strict_json
from proxy.identity.jwt_form import MAX_KID_LENGTH, canonical_base64url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from jose.backends.base import Key

MAX_KEYS = 100
"""Keys of a set that are kept."""

MAX_VALUES = 20_000
"""In a JWKS; a key has about ten."""

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512"})
EC_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
"""RFC 7518 section 3.4: each algorithm has a curve of its own."""

HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518 section 3.2: the shortest secret, which is as long as the signature."""

# Longer keys, and large exponents, make a check slow enough to be an attack.
_RSA_BITS = range(2048, 8192 + 1)
_MAX_RSA_EXPONENT = 2**32
_COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66}
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_PARAMETERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


class NoKeysError(Exception):
    """Why an issuer's keys cannot be had now: a short text for the log, with no address and no secret."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One key. ``signature_lengths`` are in bytes, for each algorithm that it may be used with.

    The fingerprint tells it from other keys of the same issuer; no client has a say in that.
    """

    kid: str | None
    signature_lengths: Mapping[str, int]
    fingerprint: bytes = field(repr=False)
    _prepared: Mapping[str, Key] = field(repr=False, compare=False)

    def signed(self, token: bytes, algorithm: str) -> bool:
        """Whether this key signed the token; whatever goes wrong with that means no."""
        from jose import jws

        try:
            # The algorithm of a prepared key overrides the header's, so there is one of each.
            jws.verify(token, self._prepared[algorithm], algorithms=[algorithm])
        except Exception:  # python-jose's faults are not all JWTError
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys, and how many more were ``dropped``.

    ``named`` says that keys were published under names. Where none has one (a PEM file, a secret), a
    token's ``kid`` has nothing to be compared with.
    """

    keys: tuple[VerificationKey, ...] = ()
    dropped: int = 0
    named: bool = False

    def choose(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The one key for a token; None where there is none, or where it would have to be guessed."""
        fitting = [key for key in self.keys if algorithm in key.signature_lengths]
        if self.named and kid is not None:
            fitting = [key for key in fitting if key.kid == kid]
        return fitting[0] if len(fitting) == 1 else None

    def lacks(self, kid: str | None, algorithm: str) -> bool:
        """Whether no key is there that such a token could mean, so that a newer set could have it."""
        if self.named and kid is not None:
            return all(key.kid != kid for key in self.keys)
        return all(algorithm not in key.signature_lengths for key in self.keys)


NO_KEYS = KeySet()


class _Published(NamedTuple):
    """A member of a set that may be usable; ``parameters`` are its texts by `_PARAMETERS`."""

    kid: str | None
    kty: str
    algorithms: frozenset[str]
    parameters: tuple[str, ...]


def from_jwks(data: bytes) -> KeySet:
    """The keys of a set. Raises ValueError where it is no strict JSON object with a list ``keys``.

    Of two keys with one ``kid`` neither counts, unless they are the same key.
    """
    try:
        document = strict_json.parse(data, MAX_VALUES)
    except ValueError:
        document = None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JSON object with a list 'keys'")
    published = [found for found in map(_published, entries) if found is not None]
    by_kid: dict[str | None, set[_Published]] = {}
    for one in published:
        by_kid.setdefault(one.kid, set()).add(one)
    dropped = len(entries) - len(published)
    unique = [one for one in dict.fromkeys(published) if one.kid is None or len(by_kid[one.kid]) == 1]
    dropped += len(set(published)) - len(unique)
    dropped += len(unique[MAX_KEYS:])  # not even looked at: a broken key costs as much as a good one
    keys = [key for key in map(_key, unique[:MAX_KEYS]) if key is not None]
    dropped += len(unique[:MAX_KEYS]) - len(keys)
    named = any(isinstance(entry, dict) and "kid" in entry for entry in entries)
    keys.sort(key=lambda key: (key.kid or "", key.fingerprint))  # another order is no change
    return KeySet(tuple(keys), dropped, named)


def from_pem(data: bytes) -> KeySet:
    """The public keys of a PEM file, those in certificates too. Raises ValueError where none is usable."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    blocks = list(_PEM.finditer(data))
    keys: list[VerificationKey] = []
    for block in blocks[:MAX_KEYS]:
        try:
            public: object = None  # which a private key stays: it has no place here
            if block[1] == b"CERTIFICATE":
                public = load_pem_x509_certificate(block[0]).public_key()
            elif block[1] in (b"PUBLIC KEY", b"RSA PUBLIC KEY"):
                public = load_pem_public_key(block[0])
            if isinstance(public, rsa.RSAPublicKey):
                keys.append(_rsa_key(None, RSA_ALGORITHMS, public))
            elif isinstance(public, ec.EllipticCurvePublicKey):
                keys.append(_ec_key(None, public))
        except ImportError:  # an incomplete installation is no bad key
            raise
        except Exception:  # from ValueError to UnsupportedAlgorithm; the next may be good
            continue
    if not keys:
        raise ValueError("no usable public key in PEM form")
    unique = {key.fingerprint: key for key in keys}
    return KeySet(tuple(unique.values()), len(blocks) - len(keys))


def from_secret(data: bytes) -> KeySet:
    """A secret for HMAC: the bytes of a file, without a line end at their end.

    Raises ValueError where it is shorter than 32 bytes, or is in truth a public key: everybody could sign
    with that. HS384 and HS512 need 48 and 64 bytes.
    """
    from jose import jwk

    secret = data.removesuffix(b"\n").removesuffix(b"\r")
    lengths = {algorithm: size for algorithm, size in HMAC_BYTES.items() if len(secret) >= size}
    if not lengths:
        raise ValueError("a secret of less than 32 bytes")
    if any(map(_is_public, (data, secret, _unarmoured(secret)))):
        raise ValueError("a key or a document, not a secret")
    try:
        prepared = {algorithm: jwk.construct(secret, algorithm) for algorithm in lengths}
    except Exception:  # python-jose knows PEM and ssh keys; its text may quote what it was given
        raise ValueError("a key or a document, not a secret") from None
    return KeySet((VerificationKey(None, lengths, sha256(secret).digest(), prepared),))


def _is_public(data: bytes) -> bool:
    """Whether it is a key or certificate in PEM or DER form, or JSON such as a JWKS."""
    from cryptography.hazmat.primitives.serialization import load_der_public_key
    from cryptography.x509 import load_der_x509_certificate

    if _PEM.search(data) or data.lstrip()[:1] in (b"{", b"["):
        return True
    for load in (load_der_public_key, load_der_x509_certificate):
        try:
            load(data)
        except Exception:
            continue
        return True
    return False


def _unarmoured(text: bytes) -> bytes:
    """What base64 stands for: some providers show their public key so, without the lines around it."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""


def _published(entry: object) -> _Published | None:
    """What can be seen of a key without building it; None where it is of no use to us."""
    if not isinstance(entry, dict) or not _PRIVATE.isdisjoint(entry):
        return None
    kty, kid, use, operations = (entry.get(name) for name in ("kty", "kid", "use", "key_ops"))
    if "kid" in entry and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        return None
    if ("use" in entry and use != "sig") or (
        "key_ops" in entry and not (isinstance(operations, list) and "verify" in operations)
    ):
        return None
    if not isinstance(kty, str) or kty not in _PARAMETERS:
        return None
    parameters = tuple(text for name in _PARAMETERS[kty] if isinstance(text := entry.get(name), str))
    if len(parameters) != len(_PARAMETERS[kty]):
        return None
    algorithms = RSA_ALGORITHMS if kty == "RSA" else frozenset({EC_ALGORITHMS.get(parameters[0], "")})
    if "alg" in entry:
        algorithms &= {entry["alg"]} if isinstance(entry["alg"], str) else set()
    return _Published(kid, kty, algorithms, parameters) if algorithms - {""} else None


def _key(one: _Published) -> VerificationKey | None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        if one.kty == "RSA":
            n, e = (int.from_bytes(canonical_base64url(text.encode("ascii"))) for text in one.parameters)
            if n.bit_length() not in _RSA_BITS:  # cryptography would look at much larger ones
                return None
            return _rsa_key(one.kid, one.algorithms, rsa.RSAPublicNumbers(e, n).public_key())
        curve, *texts = one.parameters
        x, y = (canonical_base64url(text.encode("ascii")) for text in texts)
        if {len(x), len(y)} != {_COORDINATE_BYTES[curve]}:  # RFC 7518 section 6.2.1.2
            return None
        curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curves[curve])
        return _ec_key(one.kid, numbers.public_key())  # ValueError where it is no point of the curve
    except ImportError:  # an incomplete installation is no bad key
        raise
    except Exception:
        return None


def _rsa_key(kid: str | None, algorithms: frozenset[str], public: RSAPublicKey) -> VerificationKey:
    n, e = public.public_numbers().n, public.public_numbers().e
    if public.key_size not in _RSA_BITS or not 3 <= e < _MAX_RSA_EXPONENT or n % 2 == 0 or e % 2 == 0:
        raise ValueError("too weak, or too slow")
    return _prepare(kid, dict.fromkeys(sorted(algorithms), (public.key_size + 7) // 8), public)


def _ec_key(kid: str | None, public: EllipticCurvePublicKey) -> VerificationKey:
    curve = _CURVES[public.curve.name]  # KeyError for all others
    return _prepare(kid, {EC_ALGORITHMS[curve]: 2 * _COORDINATE_BYTES[curve]}, public)


def _prepare(
    kid: str | None, lengths: Mapping[str, int], public: RSAPublicKey | EllipticCurvePublicKey
) -> VerificationKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from jose import jwk

    document = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    prepared = {algorithm: jwk.construct(public, algorithm) for algorithm in lengths}  # type: ignore[arg-type]
    return VerificationKey(kid, lengths, sha256(document).digest(), prepared)
