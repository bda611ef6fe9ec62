"""The form of a token: what is read from a sound one. What is refused stands in test_jwt_attacks."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.jwt_form import MAX_TOKEN_BYTES, canonical_base64url, read

from .tokens import claims, signer, unb64


def test_a_sound_token_is_read() -> None:
    token = signer().token()
    found = read(token)
    assert (found.algorithm, found.kid, found.claims) == ("RS256", "key-1", claims())
    assert found.signature == unb64(token.rpartition(b".")[2])
    assert read(signer().token(kid=...)).kid is None


def test_neither_claims_nor_signature_are_shown() -> None:
    assert repr(read(signer().token())) == "Token(algorithm='RS256', kid='key-1')"


def test_no_more_than_16_kib_are_looked_at() -> None:
    assert MAX_TOKEN_BYTES == 16 * 1024
    for size in (12_000, 12_100, 12_200):
        token = signer().token(claims(filler="x" * size))
        if len(token) <= MAX_TOKEN_BYTES:
            read(token)
        else:
            with pytest.raises(ValueError, match="too long"):
                read(token)


def test_a_token_without_a_signature_is_none() -> None:
    with pytest.raises(ValueError, match="not signed"):
        read(signer().token().rpartition(b".")[0] + b".")


@given(st.binary(max_size=40))
def test_bytes_have_one_spelling(data: bytes) -> None:
    assert canonical_base64url(urlsafe_b64encode(data).rstrip(b"=")) == data


@given(st.binary(max_size=12) | st.text("AQgw-_+/=. \n", max_size=8).map(str.encode))
def test_what_is_read_is_that_spelling(text: bytes) -> None:
    try:
        data = canonical_base64url(text)
    except ValueError:
        return
    assert urlsafe_b64encode(data).rstrip(b"=") == text
