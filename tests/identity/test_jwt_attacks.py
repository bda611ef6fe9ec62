"""Tokens that must never be let in, each of them wrong in one way only.

``SIGNED`` are those whose signature is right: python-jose accepts them, so nothing but a rule of ours stands
between them and a grant. ``FORGED`` are those that nobody with the issuer's key has made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.identity.api_keys import Refusal
from proxy.identity.identity import Identity
from proxy.identity.jwt import TokenVerifier
from proxy.identity.key_set import from_jwks, from_pem

from .. import certificates
from .tokens import NAME, NOW, Signer, b64, claims, issuer, jwks, key_set, signer, unb64, verifier

OURS = signer()
GOOD = OURS.token()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(b".")
STRANGER = Signer("RS256", signer("RS256", "stranger", 9).key)
ELLIPTIC = signer("ES256")
SHARED = signer("HS256")


def header(**changes: object) -> bytes:
    return OURS.token(**changes)


def told(**changes: object) -> bytes:
    return OURS.token(claims(**changes))


def with_payload(text: str | bytes) -> bytes:
    """Signed over the very text, which need not be JSON."""
    return OURS.raw(unb64(HEADER), text if isinstance(text, bytes) else text.encode())


def with_header(text: str | bytes) -> bytes:
    return OURS.raw(text if isinstance(text, bytes) else text.encode(), unb64(PAYLOAD))


def payload_and(members: str) -> bytes:
    """The good payload with more text before its end."""
    return with_payload(unb64(PAYLOAD)[:-1] + b"," + members.encode() + b"}")


def header_and(members: str) -> bytes:
    return with_header(unb64(HEADER)[:-1] + b"," + members.encode() + b"}")


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + "1" * (opening != "[") + closing * levels


def padded_to(length: int) -> bytes:
    token = told(filler="x" * ((length - len(told(filler=""))) * 3 // 4))
    assert length - 3 <= len(token) <= length
    return token


def other_bits(segment: bytes) -> bytes:
    """The same bytes in another spelling: the bits of the last character that count for nothing are set."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(segment) % 4
    changed = segment[:-1] + alphabet[alphabet.index(segment[-1]) + 1 :][:1]
    assert unb64(changed) == unb64(segment)
    return changed


def signed_with_segment(where: str, change: bytes) -> bytes:
    """Signed over a segment in an odd spelling."""
    if where == "header":
        return OURS.segments(HEADER + change, PAYLOAD)
    return OURS.segments(HEADER, PAYLOAD + change)


def in_the_other_alphabet() -> bytes:
    """A good token whose signature has - and _, as + and /."""
    for number in range(1000):
        token = told(jti=number)
        signature = token.rpartition(b".")[2]
        if b"-" in signature and b"_" in signature:
            other = signature.replace(b"-", b"+").replace(b"_", b"/")
            return token.rpartition(b".")[0] + b"." + other
    raise AssertionError


SIGNED: dict[str, bytes] = {
    # what a header may say that we do not know, or that names another key
    "crit": header(crit=["exp"]),
    "crit that names itself": header(crit=["crit"]),
    "crit empty": header(crit=[]),
    "crit null": header_and('"crit":null'),
    "crit with b64": header(crit=["b64"], b64=True),
    "b64": header(b64=True),
    "jwk": header(jwk=STRANGER.jwk()),
    "jwk of the right key": header(jwk=OURS.jwk()),
    "jwk null": header_and('"jwk":null'),
    "jku": header(jku="https://stranger.example/keys"),
    "x5u": header(x5u="https://stranger.example/cert"),
    "x5c": header(x5c=["AAAA"]),
    "cty": header(cty="JWT"),
    "enc": header(enc="A256GCM"),
    "zip": header(zip="DEF"),
    "typ of a logout token": header(typ="logout+jwt"),
    "typ JWE": header(typ="JWE"),
    "typ empty": header(typ=""),
    "typ null": with_header('{"alg":"RS256","kid":"key-1","typ":null}'),
    "typ a list": header(typ=["JWT"]),
    "typ a number": header(typ=1),
    "typ with a blank": header(typ="JWT "),
    "kid null": with_header('{"alg":"RS256","kid":null}'),
    "kid a number": header(kid=1),
    "kid a list": header(kid=["key-1"]),
    "kid an object": header(kid={"key-1": 1}),
    "kid too long": header(kid="k" * 257),
    "kid unknown": header(kid="key-2"),
    "kid empty": with_header('{"alg":"RS256","kid":""}'),
    "kid a path": header(kid="../../dev/null"),
    "kid SQL": header(kid="' OR '1'='1"),
    "kid half a surrogate": header(kid="\ud800"),
    # an algorithm that is not the issuer's
    "RS512 by the right key": replace(OURS, algorithm="RS512").token(),
    # claims
    **{
        f"iss {value!r}": told(iss=value)
        for value in (
            ..., None, "", "other", NAME + "/", NAME.upper(), NAME + " ", [NAME], {NAME: 1}, True, 0
        )
    },
    **{
        f"aud {value!r}": told(aud=value)
        for value in (..., None, "", "other", [], ["other"], ["ollama", 1], {"ollama": 1}, [["ollama"]], True)
    },
    **{
        f"exp {value!r}": told(exp=value)
        for value in (..., None, True, "", str(NOW + 300), [NOW + 300], {"a": NOW + 300}, 0, -1, NOW - 3600)
    },
    "exp with the leeway on its very second": told(exp=NOW - 30),
    "exp long ago": told(exp=1),
    **{
        f"{name} {value!r}": told(**{name: value})
        for name in ("nbf", "iat")
        for value in (None, True, "", str(NOW), [], [NOW], {}, {"a": NOW}, NOW + 31, NOW + 3600)
    },
    **{
        f"{name} {value}": with_payload(
            json.dumps(claims(**{name: "X"})).replace('"X"', value)
        )
        for name in ("exp", "nbf", "iat")
        for value in ("1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 400, "1." + "0" * 400)
    },
    # JSON with two readings
    "alg twice": header_and('"alg":"RS256"'),
    "alg twice, first none": with_header('{"alg":"none","kid":"key-1","alg":"RS256"}'),
    "kid twice": header_and('"kid":"key-1"'),
    "alg twice, once escaped": header_and('"\\u0061lg":"RS256"'),
    "iss twice": payload_and(f'"iss":"{NAME}"'),
    "iss twice, first another": with_payload('{"iss":"other",' + json.dumps(claims())[1:]),
    "exp twice": payload_and(f'"exp":{NOW + 300}'),
    "scope twice": payload_and('"scope":"read push"'),
    "scope twice, once escaped": payload_and('"sco\\u0070e":"read push"'),
    "a member twice, deep inside": payload_and('"a":[{"b":{"c":1,"c":2}}]'),
    "NaN anywhere": payload_and('"a":[NaN]'),
    "1e400 anywhere": payload_and('"a":1e400'),
    "a number of 4000 digits": payload_and(f'"a":{"9" * 4000}'),
    "a number of 5000 digits": payload_and(f'"a":{"9" * 5000}'),
    "a lone surrogate": payload_and('"a":"\\ud800"'),
    "a lone surrogate in a name": payload_and('"\\uDC00":1'),
    "a lone surrogate in sub": told(sub="\udfff"),
    "invalid UTF-8": with_payload(unb64(PAYLOAD)[:-1] + b',"a":"\xff"}'),
    "a surrogate in UTF-8": with_payload(unb64(PAYLOAD)[:-1] + b',"a":"\xed\xa0\x80"}'),
    "overlong UTF-8": with_payload(unb64(PAYLOAD)[:-1] + b',"a":"\xc0\xaf"}'),
    "a byte order mark": with_payload(b"\xef\xbb\xbf" + unb64(PAYLOAD)),
    "UTF-16": with_payload(unb64(PAYLOAD).decode().encode("utf-16")),
    "more behind the payload": with_payload(unb64(PAYLOAD) + b"x"),
    "two payloads": with_payload(unb64(PAYLOAD) * 2),
    "a NUL behind the payload": with_payload(unb64(PAYLOAD) + b"\0"),
    "a payload that is a list": with_payload(b"[" + unb64(PAYLOAD) + b"]"),
    "a payload that is a text": with_payload(json.dumps(unb64(PAYLOAD).decode())),
    "a payload that is a token": with_payload(GOOD),
    **{
        f"the payload {value!r}": with_payload(value)
        for value in ("", " ", "{}", "[]", "null", "1", '""', "{")
    },
    "the header a list of pairs": with_header('[["alg","RS256"]]'),
    # sizes
    "17 levels": payload_and('"a":' + nested(16)),
    "17 levels of objects": payload_and('"a":' + nested(16, '{"a":', "}")),
    "5000 levels": payload_and('"a":' + nested(5000)),
    "1000 levels of objects": payload_and('"a":' + nested(1000, '{"a":', "}")),
    "17 levels in the header": header_and('"a":' + nested(16)),
    "5000 levels in the header": header_and('"a":' + nested(5000)),
    "2000 values": payload_and('"a":[' + "1," * 2000 + "1]"),
    "2000 objects": payload_and('"a":[' + "{}," * 2000 + "{}]"),
    "17 KiB": padded_to(17 * 1024),
    "200 KiB": padded_to(200 * 1024),
    "17 KiB of header": header(filler="x" * 13 * 1024),
    # other spellings
    "the signature padded": GOOD + b"==",
    "the signature padded too much": GOOD + b"====",
    "the signature with other unused bits": HEADER + b"." + PAYLOAD + b"." + other_bits(SIGNATURE),
    "the signature in the other alphabet": in_the_other_alphabet(),
    "the signature with more behind it": GOOD + b"==AAAA",
    "the signature with junk inside": GOOD[:-4] + b"!!!!" + GOOD[-4:],
    "the signature with line ends": GOOD + b"\n" * 4,
    "the signature with blanks": GOOD + b" " * 4,
    "the signature folded": GOOD[:-10] + b"\r\n " + GOOD[-10:],
    "the signature with NULs": GOOD + b"\0" * 4,
    "the signature with bytes beyond ASCII": GOOD + b"\xff" * 4,
    "the header padded": signed_with_segment("header", b"=" * (-len(HEADER) % 4 or 4)),
    "the payload padded": signed_with_segment("payload", b"=" * (-len(PAYLOAD) % 4 or 4)),
    "the header with line ends": signed_with_segment("header", b"\n" * 4),
    "the payload with line ends": signed_with_segment("payload", b"\r\n" * 2),
    "the payload with junk": signed_with_segment("payload", b"!!!!"),
}  # fmt: skip


def hmac_of(secret: bytes, algorithm: str = "HS256") -> bytes:
    """A token signed with what everybody knows."""
    return Signer(algorithm, secret).token(kid="key-1")


def confusion() -> Iterator[tuple[str, bytes]]:
    """The public key as the secret of an HMAC (CVE-2016-5431, CVE-2024-33663)."""
    public = OURS.public()
    numbers = public.public_numbers()
    pem = OURS.pem()
    secrets = {
        "PEM": pem,
        "PEM without the line end": pem.rstrip(b"\n"),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "PEM without its lines": b"".join(pem.splitlines()[1:-1]),
        "PKCS #1 PEM": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "PKCS #1 DER": public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "a certificate": certificates.certificate(OURS.key),  # type: ignore[arg-type]
        "a JWK": json.dumps(OURS.jwk()).encode(),
        "a JWK, compact": json.dumps(OURS.jwk(), separators=(",", ":"), sort_keys=True).encode(),
        "a JWKS": jwks(OURS.jwk()),
        "n": numbers.n.to_bytes(256),  # type: ignore[union-attr]
        "n in base64url": b64(numbers.n.to_bytes(256)),  # type: ignore[union-attr]
        "the name of the key": b"key-1",
        "nothing": b"",
        "zeros": bytes(32),
    }
    for name, secret in secrets.items():
        for algorithm in ("HS256", "HS384", "HS512"):
            yield f"{algorithm} with {name} as the secret", hmac_of(secret, algorithm)


def unsigned() -> Iterator[tuple[str, bytes]]:
    for algorithm in ("none", "None", "NONE", "nOnE", "", " none", "none ", "HS256", "RS256", "ES256"):
        for kid in ("key-1", ...):
            head = b64(json.dumps(OURS.header(alg=algorithm, kid=kid)).encode())
            for name, signature in {"empty": b"", "of one byte": b"AA", "left": SIGNATURE}.items():
                if (algorithm, name) != ("RS256", "left") or kid is ...:
                    yield (
                        f"alg {algorithm!r}, kid {kid!r}, signature {name}",
                        b".".join((head, PAYLOAD, signature)),
                    )
    for alg in (None, True, 0, [], ["RS256"], {"alg": "RS256"}, "rs256", "RS256 ", "RS256\0", "Rs256",
                "PS256", "EdDSA", "dir", "RSA1_5", "A256KW", "ES256K"):  # fmt: skip
        document = json.dumps({"alg": alg, "kid": "key-1"}).encode()
        yield f"alg {alg!r}", OURS.raw(document, unb64(PAYLOAD))
    yield "no alg", OURS.raw(b'{"kid":"key-1"}', unb64(PAYLOAD))


def segments() -> Iterator[tuple[str, bytes]]:
    yield from {
        "nothing": b"",
        "a dot": b".",
        "two dots": b"..",
        "three dots": b"...",
        "no signature": HEADER + b"." + PAYLOAD,
        "an empty signature": HEADER + b"." + PAYLOAD + b".",
        "a trailing dot": GOOD + b".",
        "many trailing dots": GOOD + b"." * 1000,
        "a leading dot": b"." + GOOD,
        "four segments": GOOD + b"." + SIGNATURE,
        "five segments": GOOD + b"." + PAYLOAD + b"." + SIGNATURE,
        "an empty header": b"." + PAYLOAD + b"." + SIGNATURE,
        "an empty payload": HEADER + b".." + SIGNATURE,
        "twice": GOOD + GOOD,
        "two tokens": GOOD + b"," + GOOD,
        "Bearer": b"Bearer " + GOOD,
        "in quotes": b'"' + GOOD + b'"',
        "a blank before it": b" " + GOOD,
        "a line end before it": b"\n" + GOOD,
        "its JSON form": json.dumps(
            {"protected": HEADER.decode(), "payload": PAYLOAD.decode(), "signature": SIGNATURE.decode()}
        ).encode(),
        "dots only": b"." * 16_000,
        "a huge header": b"A" * 16_000 + b"." + PAYLOAD + b"." + SIGNATURE,
        "a megabyte": b"A" * 1_000_000,
    }.items()


def encrypted() -> Iterator[tuple[str, bytes]]:
    for algorithm, encryption in (
        ("dir", "A256GCM"),
        ("RSA-OAEP", "A128CBC-HS256"),
        ("PBES2-HS512+A256KW", "A256GCM"),
    ):
        document = {"alg": algorithm, "enc": encryption, "zip": "DEF", "p2c": 10**9, "kid": "key-1"}
        head = b64(json.dumps(document).encode())
        yield f"JWE {algorithm}", b".".join((head, b"", b64(bytes(12)), b64(bytes(1000)), b64(bytes(16))))
        yield f"JWE {algorithm} in three segments", b".".join((head, PAYLOAD, SIGNATURE))


def signed_by_others() -> Iterator[tuple[str, bytes]]:
    yield "a stranger's key under our name", STRANGER.token()
    yield "a stranger's key, in the header", STRANGER.token(jwk=STRANGER.jwk())
    yield (
        "a stranger's certificate, in the header",
        STRANGER.token(
            x5c=[b64(certificates.certificate(STRANGER.key)).decode()]  # type: ignore[arg-type]
        ),
    )
    yield "a stranger's address of keys", STRANGER.token(jku="https://stranger.example/keys")
    yield (
        "the signature of another token",
        GOOD.rpartition(b".")[0] + b"." + told(sub="bob").rpartition(b".")[2],
    )
    yield "another payload", HEADER + b"." + b64(json.dumps(claims(sub="bob")).encode()) + b"." + SIGNATURE
    yield "another header", b64(unb64(HEADER) + b" ") + b"." + PAYLOAD + b"." + SIGNATURE
    raw = unb64(SIGNATURE)
    for name, changed in {
        "cut": raw[:-1],
        "longer": raw + b"\0",
        "with a zero before it": b"\0" + raw,
        "zero": bytes(256),
        "one": bytes(255) + b"\1",
        "the modulus": OURS.public().public_numbers().n.to_bytes(256),  # type: ignore[union-attr]
        "plus the modulus": (
            int.from_bytes(raw) + OURS.public().public_numbers().n  # type: ignore[union-attr]
        ).to_bytes(257),
        "all ones": b"\xff" * 256,
    }.items():
        yield f"a signature {name}", HEADER + b"." + PAYLOAD + b"." + b64(changed)


FORGED: dict[str, bytes] = {
    **dict(confusion()),
    **dict(unsigned()),
    **dict(segments()),
    **dict(encrypted()),
    **dict(signed_by_others()),
}

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


def elliptic() -> Iterator[tuple[str, bytes]]:
    """For an issuer with an ES256 key."""
    token = ELLIPTIC.token()
    head, _, signature = token.rpartition(b".")
    r, s = (int.from_bytes(part) for part in (unb64(signature)[:32], unb64(signature)[32:]))
    for name, raw in {
        "r and s zero": bytes(64),  # CVE-2022-21449
        "r zero": bytes(32) + s.to_bytes(32),
        "s zero": r.to_bytes(32) + bytes(32),
        "r and s the order": ORDER.to_bytes(32) * 2,
        "r beyond the order": (r + ORDER).to_bytes(33) + s.to_bytes(33),
        "all ones": b"\xff" * 64,
        "in DER form": encode_dss_signature(r, s),
        "in 66 bytes": r.to_bytes(33) + s.to_bytes(33),
        "cut": unb64(signature)[:63],
        "one byte longer": unb64(signature) + b"\0",
        "of P-384": signer("ES384").sign(head),
        "empty": b"",
    }.items():
        yield name, head + b"." + b64(raw)
    yield "RS256", OURS.token()
    yield "HS256 with the public key", hmac_of(ELLIPTIC.pem())
    yield (
        "ES384 by a P-256 key",
        ELLIPTIC.segments(b64(json.dumps(ELLIPTIC.header(alg="ES384")).encode()), PAYLOAD),
    )
    on_another_curve = Signer("ES256", signer("ES384").key)
    yield "ES256 by a P-384 key", on_another_curve.token()
    yield "ES256 by a stranger", Signer("ES256", ec.generate_private_key(ec.SECP256R1())).token()


def shared() -> Iterator[tuple[str, bytes]]:
    """For an issuer with a secret."""
    yield "RS256 by whoever", STRANGER.token()
    yield "RS256 with a key in the header", STRANGER.token(jwk=STRANGER.jwk())
    yield "ES256 by whoever", ELLIPTIC.token()
    yield "none", b64(b'{"alg":"none"}') + b"." + PAYLOAD + b"."
    yield "HS512 with the right secret", replace(SHARED, algorithm="HS512").token()
    for secret in (b"", b"secret", bytes(32), bytes(64)):
        yield f"another secret of {len(secret)} bytes", hmac_of(secret)
    head, _, signature = SHARED.token().rpartition(b".")
    for name, raw in {
        "cut": unb64(signature)[:16],
        "one byte": unb64(signature)[:1],
        "longer": unb64(signature) + b"\0",
        "empty": b"",
        "zero": bytes(32),
    }.items():
        yield f"a signature {name}", head + b"." + b64(raw)


def test_the_tokens_that_the_attacks_are_made_from_are_good() -> None:
    for ours in (OURS, ELLIPTIC, SHARED):
        assert isinstance(verifier(ours).verify(ours.token(), NOW), Identity)
    for token in (
        with_payload(unb64(PAYLOAD)),
        with_header(unb64(HEADER)),
        signed_with_segment("header", b""),
    ):
        assert isinstance(verifier().verify(token, NOW), Identity)
    for near in (
        payload_and('"a":' + nested(15)),
        payload_and('"a":[' + "1," * 350 + "1]"),
        padded_to(16 * 1024),
        told(exp=NOW - 29.9),
        told(nbf=NOW + 30),
        header_and('"a":"\\ud83d\\ude00"'),
    ):
        assert isinstance(verifier().verify(near, NOW), Identity)


@pytest.mark.parametrize("name", SIGNED)
def test_a_right_signature_does_not_help(name: str) -> None:
    assert verifier().verify(SIGNED[name], NOW) is Refusal.INVALID


def test_python_jose_alone_would_let_nearly_all_of_them_in() -> None:
    """Without this, a fault in making them would let the test above pass for nothing."""
    key = OURS.pem().decode()
    refused = {name for name, token in SIGNED.items() if not accepted_by_python_jose(token, key)}
    assert refused == {"the header a list of pairs", "5000 levels in the header"}  # the last: RecursionError


def accepted_by_python_jose(token: bytes, key: str) -> bool:
    from jose import jws

    try:
        jws.verify(token, key, algorithms=["RS256", "RS512"])
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(name: str) -> None:
    for found in (verifier(), from_a_file(), knowing_all()):
        assert found.verify(FORGED[name], NOW) is Refusal.INVALID


def from_a_file() -> TokenVerifier:
    """Without a name for the key, so that it is the one for every kid."""
    one = issuer(public_key_file=issuer().jwks_file)
    found = TokenVerifier([one])
    found.replace_keys(one, from_pem(OURS.pem()))
    return found


def knowing_all() -> TokenVerifier:
    """Allows by mistake what it has no keys for: the kind of the key still decides."""
    one = issuer(algorithms=frozenset({"none", "RS256", "HS256", "HS384", "HS512", "ES256"}))
    found = TokenVerifier([one])
    secret = {"kty": "oct", "kid": "key-1", "k": "A" * 86}
    found.replace_keys(one, from_jwks(jwks(OURS.jwk(), secret, secret | {"kid": "other"})))
    assert isinstance(found.verify(GOOD, NOW), Identity)
    return found


@pytest.mark.parametrize("name", dict(elliptic()))
def test_a_forged_token_is_refused_by_an_issuer_with_an_elliptic_key(name: str) -> None:
    assert verifier(ELLIPTIC).verify(dict(elliptic())[name], NOW) is Refusal.INVALID


@pytest.mark.parametrize("name", dict(shared()))
def test_a_forged_token_is_refused_by_an_issuer_with_a_secret(name: str) -> None:
    assert verifier(SHARED).verify(dict(shared())[name], NOW) is Refusal.INVALID


def test_the_key_of_one_issuer_proves_nothing_for_another() -> None:
    first, second = issuer(), issuer(issuer="https://second.example", leeway=0.0)
    found = TokenVerifier([first, second])
    found.replace_keys(first, key_set(OURS))
    found.replace_keys(second, key_set(STRANGER))
    assert found.verify(STRANGER.token(), NOW) is Refusal.INVALID
    assert found.verify(told(iss="https://second.example"), NOW) is Refusal.INVALID
    assert isinstance(found.verify(STRANGER.token(claims(iss="https://second.example")), NOW), Identity)


@pytest.mark.parametrize("table", ["signed", "forged"])
def test_no_attack_makes_us_ask_the_issuer_but_a_name_that_we_do_not_know(table: str) -> None:
    found = verifier(jwks_url="https://issuer.example/keys")
    attacks = SIGNED if table == "signed" else FORGED
    asked = {name for name, token in attacks.items() if found.verify(token, NOW) is not Refusal.INVALID}
    # Names that we do not know, and a signature that could be a new key's, where a token names none.
    assert asked == (
        {"kid unknown", "kid empty", "kid a path", "kid SQL"}
        if table == "signed"
        else {"alg 'RS256', kid Ellipsis, signature left"}
    )


def test_none_of_them_is_remembered_as_good() -> None:
    found = verifier()
    for token in (*SIGNED.values(), *FORGED.values()):
        for _ in range(2):
            assert found.verify(token, NOW) is Refusal.INVALID
    assert not found._proved
    assert isinstance(found.verify(GOOD, NOW), Identity)


def test_none_of_them_takes_longer_than_a_check_of_a_signature_may() -> None:
    found = verifier()
    slowest = {}
    for name, token in (SIGNED | FORGED).items():
        times = []
        for _ in range(5):
            found.clear()
            begun = time.perf_counter()
            found.verify(token, NOW)
            times.append(time.perf_counter() - begun)
        slowest[name] = min(times)
    assert {name: taken for name, taken in slowest.items() if taken > 1e-3} == {}
