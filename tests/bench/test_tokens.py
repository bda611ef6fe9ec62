"""The tokens of the benchmark hold by the proxy's own rules, and each is another one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench import tokens
from proxy.identity.identity import Identity
from proxy.identity.issuer import Issuer
from proxy.identity.jwt import TokenVerifier
from proxy.identity.key_set import from_jwks, from_pem


@pytest.fixture
def verifier(tmp_path: Path) -> TokenVerifier:
    files = tokens.write_public_keys(tmp_path)
    rsa, ec = (
        Issuer(tokens.issuer(algorithm), frozenset({tokens.AUDIENCE}), frozenset({algorithm}))
        for algorithm in tokens.ALGORITHMS
    )
    made = TokenVerifier([rsa, ec])
    made.replace_keys(rsa, from_jwks(files["RS256"].read_bytes()))
    made.replace_keys(ec, from_pem(files["ES256"].read_bytes()))
    return made


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_every_token_is_another_one_and_may_do_what_the_key_may(
    verifier: TokenVerifier, algorithm: str
) -> None:
    made = tokens.tokens(algorithm, 20)
    assert len(set(made)) == 20
    for token in made:
        identity = verifier.verify(token.encode(), time.time())
        assert isinstance(identity, Identity)
        assert identity.scopes == {"read", "inference", "manage"}
        assert identity.models is None


def test_the_token_of_one_issuer_does_not_hold_for_the_other() -> None:
    assert tokens.issuer("RS256") != tokens.issuer("ES256")
    assert set(tokens.tokens("RS256", 2)).isdisjoint(tokens.tokens("ES256", 2))
