"""Which of an issuer's keys are used, and for what."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.identity import key_set
from proxy.identity.key_set import KeySet, from_jwks, from_pem, from_secret

from .. import certificates
from .tokens import ALGORITHMS, SECRET, Signer, jwks, number, signer
from .tokens import key_set as keys_of

PUBLIC = [algorithm for algorithm in ALGORITHMS if not algorithm.startswith("HS")]


def usable(entry: object) -> KeySet:
    return from_jwks(jwks(entry))


# JWKS


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_published_key_checks_what_its_owner_signed(algorithm: str) -> None:
    ours, other = signer(algorithm), signer(algorithm, "other", 2)
    found = keys_of(ours)
    key = found.choose("key-1", algorithm)
    assert key is not None
    assert key.signed(ours.token(), algorithm)
    assert not key.signed(other.token(), algorithm)
    assert not key.signed(ours.token()[:-8] + b"AAAAAAAA", algorithm)
    assert found.dropped == 0


@pytest.mark.parametrize(("family", "algorithms"), [("RS256", "RS256 RS384 RS512"), ("ES256", "ES256"),
                                                    ("ES384", "ES384"), ("ES512", "ES512")])  # fmt: skip
def test_a_key_serves_the_algorithms_of_its_kind_and_curve(family: str, algorithms: str) -> None:
    found = keys_of(signer(family))
    assert {one for one in ALGORITHMS if found.choose("key-1", one)} == set(algorithms.split())


def test_an_algorithm_that_a_key_names_is_its_only_one() -> None:
    found = usable(signer().jwk(alg="RS384"))
    assert {one for one in ALGORITHMS if found.choose("key-1", one)} == {"RS384"}


def weak(bits: int, e: int = 65537) -> dict[str, object]:
    return {"kty": "RSA", "kid": "key-1", "n": number((1 << (bits - 1)) | 1), "e": number(e)}


RSA = signer().jwk()
EC = signer("ES256").jwk()
POINT = signer("ES256").public().public_numbers()

UNUSABLE: dict[str, object] = {
    "no object": "key",
    "null": None,
    "a list": [],
    "empty": {},
    "RSA of 512 bits": weak(512),
    "RSA of 1024 bits": weak(1024),
    "RSA of 2047 bits": weak(2047),
    "RSA of 8193 bits": weak(8193),
    "RSA of 100000 bits": weak(100_000),
    "exponent 1": weak(2048, 1),
    "exponent 2": weak(2048, 2),
    "an even exponent": weak(2048, 65536),
    "a large exponent": weak(2048, 2**32 + 1),
    "an exponent as large as the modulus": weak(2048, 2**2047),
    "an even modulus": RSA | {"n": number(1 << 2047)},
    "n 0": RSA | {"n": "AA"},
    "n empty": RSA | {"n": ""},
    "n missing": {name: value for name, value in RSA.items() if name != "n"},
    "e missing": {name: value for name, value in RSA.items() if name != "e"},
    "n a number": RSA | {"n": 5},
    "n padded": RSA | {"n": f"{RSA['n']}=="},
    "n in the other alphabet": RSA | {"n": f"{RSA['n']}".replace("-", "+").replace("_", "/") + "+/+/"},
    "n with more behind it": RSA | {"n": f"{RSA['n']}\n"},
    "n not ASCII": RSA | {"n": f"{RSA['n']}\u00e4"},
    "private RSA": RSA | {"d": "AQAB"},
    "private EC": EC | {"d": "AQAB"},
    "a prime": RSA | {"p": "AQAB"},
    "other primes": RSA | {"oth": []},
    "a secret": {"kty": "oct", "kid": "key-1", "k": "A" * 86, "alg": "HS256"},
    "a secret beside a public key": RSA | {"k": "A" * 86},
    "Ed25519": {"kty": "OKP", "kid": "key-1", "crv": "Ed25519", "x": "A" * 43},
    "an unknown kty": RSA | {"kty": "rsa"},
    "kty a list": RSA | {"kty": ["RSA"]},
    "kty an object": RSA | {"kty": {}},
    "secp256k1": EC | {"crv": "secp256k1"},
    "an unknown curve": EC | {"crv": "P-257"},
    "a curve that is not a text": EC | {"crv": ["P-256"]},
    "another curve": EC | {"crv": "P-384"},
    "off the curve": EC | {"x": number(POINT.x ^ 1, 32)},
    "the point 0": EC | {"x": "A" * 43, "y": "A" * 43},
    "x too long": EC | {"x": number(POINT.x, 33)},
    "x too short": EC | {"x": "AQAB"},
    "y missing": {name: value for name, value in EC.items() if name != "y"},
    "for encryption": RSA | {"use": "enc"},
    "use empty": RSA | {"use": ""},
    "use null": RSA | {"use": None},
    "use a list": RSA | {"use": ["sig"]},
    "may only sign": RSA | {"key_ops": ["sign"]},
    "may encrypt": RSA | {"key_ops": ["encrypt"]},
    "may do nothing": RSA | {"key_ops": []},
    "key_ops a text": RSA | {"key_ops": "verify"},
    "RSA-OAEP": RSA | {"alg": "RSA-OAEP"},
    "PS256": RSA | {"alg": "PS256"},
    "none": RSA | {"alg": "none"},
    "alg of another kind": RSA | {"alg": "ES256"},
    "alg of another curve": EC | {"alg": "ES384"},
    "HMAC with a public key": RSA | {"alg": "HS256"},
    "alg null": RSA | {"alg": None},
    "alg a list": RSA | {"alg": ["RS256"]},
    "kid a number": RSA | {"kid": 1},
    "kid null": RSA | {"kid": None},
    "kid a list": RSA | {"kid": ["key-1"]},
    "kid too long": RSA | {"kid": "k" * 257},
}


def test_the_keys_that_the_unusable_ones_are_made_from_are_usable() -> None:
    for good in (RSA, EC, RSA | {"key_ops": ["verify"]}, RSA | {"x5c": ["AAAA"], "x5t": "A", "other": {}}):
        assert len(usable(good).keys) == 1
    assert len(usable(RSA | {"kid": "k" * 256}).keys) == 1
    assert len(usable({"kty": "RSA", "n": number(signer().public().public_numbers().n), "e": "Aw"}).keys) == 1  # type: ignore[union-attr]
    padded = b"\0" + signer().public().public_numbers().n.to_bytes(256)  # type: ignore[union-attr]
    assert len(usable(RSA | {"n": number(int.from_bytes(padded), 257)}).keys) == 1, "Java's leading zero"


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_key_is_dropped_and_counted_and_the_others_stay(name: str) -> None:
    good = replace(signer("RS256", "good", 2), kid="good")
    for order in ([UNUSABLE[name], good.jwk()], [good.jwk(), UNUSABLE[name]]):
        found = from_jwks(jwks(*order))
        assert [key.kid for key in found.keys] == ["good"]
        assert found.dropped == 1
        assert found.choose("key-1", "RS256") is None
        assert found.choose("key-1", "ES256") is None
        assert found.choose("good", "RS256") is not None


def test_of_two_keys_with_one_name_neither_counts() -> None:
    first, second, third = (signer("RS256", "key-1", number).jwk() for number in (1, 2, 3))
    found = from_jwks(jwks(first, second, third | {"kid": "third"}))
    assert [key.kid for key in found.keys] == ["third"]
    assert found.dropped == 2
    assert from_jwks(jwks(first, signer("ES256").jwk())).keys == ()
    assert from_jwks(jwks(first, first | {"alg": "RS256"})).keys == ()


def test_a_key_that_is_published_twice_counts_once() -> None:
    found = from_jwks(jwks(RSA, RSA, RSA | {"x5t": "other"}))
    assert (len(found.keys), found.dropped) == (1, 0)


def test_a_name_that_a_dropped_key_has_too_is_no_obstacle() -> None:
    found = from_jwks(jwks(RSA, signer("RS256", "key-1", 2).jwk(use="enc")))
    assert found.choose("key-1", "RS256") is not None


def test_a_hundred_keys_are_kept() -> None:
    entries = [RSA | {"kid": f"key-{number}"} for number in range(150)]
    found = from_jwks(jwks(*entries))
    assert (len(found.keys), found.dropped) == (100, 50)


def test_many_broken_keys_cost_no_more_than_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(key_set, "_key", tried.append)
    entries = [EC | {"kid": f"key-{number}", "x": "A" * 43} for number in range(2000)]
    assert from_jwks(jwks(*entries)).dropped == 2000
    assert len(tried) == 100


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b'"keys"', b"{}", b'{"keys":{}}', b'{"keys":null}', b'{"key":[]}', b'{"keys":[]} x',
     b'{"keys":[],"keys":[]}', b'{"keys":[NaN]}', b"\xff", jwks(RSA)[:-1], b"<html>",
     json.dumps(RSA).encode(), json.dumps([RSA]).encode(), signer().pem(), b"[" * 1000,
     b'{"keys":[' + b"1," * 30_000 + b"1]}"],
    ids=count(),
)  # fmt: skip
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object with a list 'keys'"):
        from_jwks(data)


def test_an_empty_set_is_a_set() -> None:
    assert from_jwks(b'{"keys":[]}') == KeySet()


def test_the_order_of_a_set_makes_no_difference() -> None:
    entries = [RSA, EC | {"kid": "b"}, signer("RS256", "c", 2).jwk(), EC | {"kid": "d"}]
    assert from_jwks(jwks(*entries)) == from_jwks(jwks(*reversed(entries)))
    assert from_jwks(jwks(*entries)) != from_jwks(jwks(*entries[1:]))
    assert usable(RSA) != usable(RSA | {"alg": "RS256"})
    assert usable(RSA) != usable(RSA | {"kid": "other"})


anything = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from([*RSA.values(), *EC.values()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
entries = st.dictionaries(
    st.sampled_from(["kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y", "d", "k"]), anything
)


@settings(max_examples=200, deadline=None)
@given(st.lists(entries | st.builds(lambda changes: RSA | changes, entries), max_size=5))
def test_whatever_is_published_every_key_is_kept_or_counted(published: list[dict[str, object]]) -> None:
    try:
        data = json.dumps({"keys": published}).encode()
        found = from_jwks(data)
    except ValueError:  # half of a surrogate pair
        return
    assert len(found.keys) + found.dropped <= len(published)
    assert found.keys or found.dropped or not published
    kids = [key.kid for key in found.keys if key.kid is not None]
    assert len(set(kids)) == len(kids)


# Which key a token means


def test_the_key_is_the_one_of_that_name() -> None:
    found = keys_of(signer(), signer("RS256", "key-2", 2), signer("ES256", "key-3"))
    chosen = found.choose("key-2", "RS256")
    assert chosen is not None
    assert chosen.signed(signer("RS256", "key-2", 2).token(), "RS256")
    assert found.choose("key-3", "RS256") is None
    assert found.choose("key-4", "RS256") is None
    assert found.choose("", "RS256") is None
    assert found.choose("key-2", "HS256") is None


def test_without_a_name_only_a_key_that_is_alone_is_meant() -> None:
    found = keys_of(signer(), signer("RS256", "key-2", 2), signer("ES256", "key-3"))
    assert found.choose(None, "RS256") is None
    assert found.choose(None, "ES256") is not None
    assert keys_of(signer()).choose(None, "RS256") is not None


def test_where_no_key_has_a_name_that_of_a_token_says_nothing() -> None:
    assert from_pem(signer().pem()).choose("any", "RS256") is not None
    assert usable(signer("RS256", None).jwk()).choose("any", "RS256") is not None
    mixed = from_jwks(jwks(signer("RS256", None).jwk(), signer("RS256", "named", 2).jwk()))
    assert mixed.choose("any", "RS256") is None
    left = from_jwks(jwks(signer("RS256", None).jwk(), signer("RS256", "named", 2).jwk(use="enc")))
    assert left.choose("any", "RS256") is None


def test_it_is_known_whether_a_newer_set_could_have_the_key() -> None:
    found = keys_of(signer(), signer("RS256", "key-2", 2))
    assert found.lacks("key-3", "RS256")
    assert not found.lacks("key-1", "RS256")
    assert not found.lacks("key-1", "ES256"), "that name is taken"
    assert not found.lacks(None, "RS256"), "two could be meant, and that stays so"
    assert found.lacks(None, "ES256")
    assert KeySet().lacks("key-1", "RS256")
    assert KeySet().lacks(None, "RS256")


# PEM


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_public_key_in_a_file_is_taken_in_each_of_its_forms(algorithm: str) -> None:
    ours = signer(algorithm)
    assert not isinstance(ours.key, bytes)
    forms = [ours.pem(), certificates.certificate(ours.key, ends=datetime(2001, 1, 1, tzinfo=UTC))]
    if algorithm.startswith("RS"):
        forms.append(ours.public().public_bytes(Encoding.PEM, PublicFormat.PKCS1))
    for form in forms:
        found = from_pem(b"# our issuer\n" + form.replace(b"\n", b"\r\n") + b"\n")
        key = found.choose("key-1", algorithm)
        assert key is not None
        assert key.signed(ours.token(), algorithm)
        assert found.dropped == 0


def pem(public: object) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


UNUSABLE_PEM = {
    "RSA of 1024 bits": pem(rsa.generate_private_key(65537, 1024).public_key()),
    "secp256k1": pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
    "Ed25519": pem(ed25519.Ed25519PrivateKey.generate().public_key()),
    "DSA": pem(dsa.generate_private_key(1024).public_key()),
    "private": certificates.private_key(certificates.ec_key()),
    "private, traditional": certificates.private_key(certificates.ec_key(), traditional=True),
    "private, encrypted": certificates.private_key(certificates.ec_key(), b"password"),
    "broken": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
}


@pytest.mark.parametrize("name", UNUSABLE_PEM)
def test_an_unusable_pem_block_is_dropped(name: str) -> None:
    with pytest.raises(ValueError, match="no usable public key"):
        from_pem(UNUSABLE_PEM[name])
    found = from_pem(UNUSABLE_PEM[name] + signer().pem())
    assert (len(found.keys), found.dropped) == (1, 1)


@pytest.mark.parametrize("data", [b"", b"key", signer().pem()[:-20], jwks(RSA), SECRET], ids=count())
def test_a_file_without_a_pem_block_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no usable public key"):
        from_pem(data)


# Secrets


@pytest.mark.parametrize("size", [32, 48, 64, 100])
def test_a_secret_serves_the_hashes_that_are_no_longer(size: int) -> None:
    secret = bytes(range(size))
    found = from_secret(secret)
    for algorithm, least in {"HS256": 32, "HS384": 48, "HS512": 64}.items():
        key = found.choose("any", algorithm)
        assert (key is not None) is (size >= least)
        if key is not None:
            assert key.signed(Signer(algorithm, secret).token(), algorithm)
            assert not key.signed(Signer(algorithm, secret[::-1]).token(), algorithm)
    assert not any(found.choose(None, algorithm) for algorithm in PUBLIC)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_line_end_of_a_file_is_no_part_of_the_secret(end: bytes) -> None:
    assert from_secret(SECRET + end) == from_secret(SECRET)
    assert from_secret(SECRET + end + end) != from_secret(SECRET)


def test_a_short_secret_is_refused() -> None:
    for secret in (b"", b"\n", b"secret", b"x" * 31, b"x" * 31 + b"\n"):
        with pytest.raises(ValueError, match="less than 32 bytes"):
            from_secret(secret)


def der(one: Signer, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> bytes:
    return one.public().public_bytes(Encoding.DER, form)


PUBLIC_DOCUMENTS: dict[str, bytes] = {
    "RSA in PEM form": signer().pem(),
    "EC in PEM form": signer("ES256").pem(),
    "a certificate": certificates.certificate(signer().key),  # type: ignore[arg-type]
    "a private key": certificates.private_key(signer().key),  # type: ignore[arg-type]
    "RSA in DER form": der(signer()),
    "EC in DER form": der(signer("ES256")),
    "RSA as PKCS #1": der(signer(), PublicFormat.PKCS1),
    "PEM without its lines": b64encode(der(signer())),
    "an ssh key": signer().public().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "a JWKS": jwks(RSA),
    "a JWK": json.dumps(RSA).encode(),
    "a list of JWKs": json.dumps([RSA]).encode(),
}


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["", "line end"])
@pytest.mark.parametrize("name", PUBLIC_DOCUMENTS)
def test_what_everybody_may_know_is_no_secret(name: str, end: bytes) -> None:
    with pytest.raises(ValueError, match="a key or a document") as refused:
        from_secret(PUBLIC_DOCUMENTS[name] + end)
    assert refused.value.__cause__ is None


# What is never told, and what is not loaded


def test_no_key_is_shown() -> None:
    for found in (from_secret(SECRET), keys_of(signer())):
        shown = repr(found) + str(found.keys[0])
        assert "fingerprint" not in shown
        assert "prepared" not in shown
        assert repr(SECRET)[2:20] not in shown
        assert "object at" not in shown


def test_a_proxy_without_issuers_loads_no_library_for_them() -> None:
    program = (
        "import sys; from proxy.identity.jwt import TokenVerifier; import proxy.identity.issuer_keys;"
        "TokenVerifier([]).verify(b'a.b.c', 0.0);"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'jose', 'cryptography', 'ecdsa'}))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
