"""Who is let in with a JWT, for how long, and at what cost. What is refused stands in test_jwt_attacks."""

from __future__ import annotations

import gc
import timeit
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.identity import api_keys, jwt
from proxy.identity.api_keys import Refusal
from proxy.identity.identity import Identity
from proxy.identity.jwt import TokenVerifier, UnknownKey
from proxy.identity.key_set import VerificationKey, from_pem

from .tokens import ALGORITHMS, NAME, NOW, Signer, claims, issuer, jwks, key_set, signer, verifier

ALICE = Identity("jwt", None, "alice", frozenset({"read", "inference"}))
REMOTE = {"jwks_url": "https://issuer.example/keys"}


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The tokens whose signature has been checked."""
    checked: list[bytes] = []
    signed = VerificationKey.signed

    def counting(self: VerificationKey, token: bytes, algorithm: str) -> bool:
        checked.append(token)
        return signed(self, token, algorithm)

    monkeypatch.setattr(VerificationKey, "signed", counting)
    return checked


def with_other_signature(token: bytes) -> bytes:
    head, _, signature = token.rpartition(b".")
    return head + b"." + (b"B" if signature[:1] == b"A" else b"A") + signature[1:]


# Who is let in


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_of_each_algorithm_lets_its_holder_in(algorithm: str) -> None:
    ours = signer(algorithm)
    found = verifier(ours)
    assert found.verify(ours.token(), NOW) == ALICE
    assert found.verify(with_other_signature(ours.token()), NOW) is Refusal.INVALID


@pytest.mark.parametrize(
    "header",
    [{"typ": ...}, {"typ": "jwt"}, {"typ": "at+jwt"}, {"typ": "AT+JWT"}, {"typ": "application/jwt"},
     {"typ": "application/at+JWT"}, {"x5t": "abc"}, {"x5t#S256": "abc"}, {"kid": ...}, {"iss": "x", "n": 1}],
)  # fmt: skip
def test_what_real_issuers_put_in_a_header_is_accepted(header: dict[str, object]) -> None:
    assert verifier().verify(signer().token(**header), NOW) == ALICE


def test_the_claims_grant_what_the_configuration_says() -> None:
    found = verifier(models_claim="m", cloud_claim="c", limits_claim="l", name_claim="n", scope_claim="a.b")
    told = claims(m=["qwen3:*"], c=True, l={"max_context": 4096}, n="team a", a={"b": ["push"]})
    caller = found.verify(signer().token(told), NOW)
    assert isinstance(caller, Identity)
    assert (caller.models, caller.cloud, caller.limits.max_context) == (("qwen3:*",), True, 4096)
    assert (caller.key_name, caller.scopes) == ("team a", {"push"})


def test_each_issuer_has_keys_algorithms_and_audiences_of_its_own() -> None:
    settings = {"a": ("RS256", "for-a"), "b": ("ES256", "for-b"), "c": ("HS256", "for-c")}
    issuers = {
        name: issuer(algorithm, issuer=name, audiences=frozenset({audience}))
        for name, (algorithm, audience) in settings.items()
    }
    found = TokenVerifier(issuers.values())
    for name, (algorithm, _) in settings.items():
        found.replace_keys(issuers[name], key_set(signer(algorithm)))
    for claimed in settings:
        for audience in ("for-a", "for-b", "for-c"):
            for algorithm in ("RS256", "ES256", "HS256"):
                token = signer(algorithm).token(claims(iss=claimed, aud=audience))
                good = settings[claimed] == (algorithm, audience)
                assert found.verify(token, NOW) == (ALICE if good else Refusal.INVALID)


def test_an_issuer_may_have_several_keys_algorithms_and_audiences() -> None:
    one = issuer(algorithms=frozenset({"RS256", "ES256"}), audiences=frozenset({"first", "second"}))
    found = TokenVerifier([one])
    keys = [signer(), signer("RS256", "key-2", 2), signer("ES256", "key-3")]
    found.replace_keys(one, key_set(*keys))
    for key in keys:
        for audience in ("first", "second", ["second", "third"]):
            assert found.verify(key.token(claims(aud=audience)), NOW) == ALICE


def test_a_key_in_pem_form_serves_whatever_kid_its_issuer_writes() -> None:
    one = issuer(public_key_file=issuer().jwks_file)
    found = TokenVerifier([one])
    found.replace_keys(one, from_pem(signer().pem()))
    for kid in ("key-1", "any", ...):
        assert found.verify(signer().token(kid=kid), NOW) == ALICE


def test_two_issuers_of_one_name_are_a_fault() -> None:
    with pytest.raises(ValueError, match=NAME):
        TokenVerifier([issuer(), issuer("ES256")])


def test_without_issuers_or_keys_nobody_is_known() -> None:
    assert TokenVerifier([]).verify(signer().token(), NOW) is Refusal.INVALID
    assert TokenVerifier([issuer()]).verify(signer().token(), NOW) is Refusal.INVALID


# Keys that may have been published since


def test_a_key_that_a_remote_issuer_may_have_published_since_is_told() -> None:
    stranger = signer("RS256", "new", 2)
    one = issuer(**REMOTE)
    found = TokenVerifier([one])
    found.replace_keys(one, key_set(signer()))
    assert found.verify(stranger.token(), NOW) == UnknownKey(one)
    found.replace_keys(one, key_set(signer(), stranger))
    assert found.verify(stranger.token(), NOW) == ALICE


@pytest.mark.parametrize(
    "changes",
    [{"iss": "other"}, {"aud": "other"}, {"exp": NOW - 60}, {"exp": ...}, {"nbf": NOW + 60}, {"iat": None}],
)
def test_for_a_token_that_is_wrong_anyway_nothing_is_fetched(changes: dict[str, object]) -> None:
    token = signer("RS256", "new", 2).token(claims(**changes))
    assert verifier(**REMOTE).verify(token, NOW) is Refusal.INVALID


def test_for_a_wrong_signature_under_a_known_name_nothing_is_fetched() -> None:
    stranger = signer("RS256", "key-1", 2)
    assert verifier(**REMOTE).verify(stranger.token(), NOW) is Refusal.INVALID
    assert verifier(**REMOTE).verify(signer("ES256").token(), NOW) is Refusal.INVALID


def test_for_a_token_without_a_signature_nothing_is_fetched() -> None:
    unsigned = signer("RS256", "new", 2).token().rpartition(b".")[0] + b"."
    assert verifier(**REMOTE).verify(unsigned, NOW) is Refusal.INVALID


def test_for_a_known_name_of_a_key_of_another_kind_nothing_is_fetched() -> None:
    found = verifier(algorithms=frozenset({"RS256", "ES256"}), **REMOTE)
    assert found.verify(signer("ES256", "key-1").token(), NOW) is Refusal.INVALID
    assert isinstance(found.verify(signer("ES256", "key-2").token(), NOW), UnknownKey)


def test_for_a_key_in_a_file_nothing_is_fetched() -> None:
    assert verifier().verify(signer("RS256", "new", 2).token(), NOW) is Refusal.INVALID


def test_before_the_first_fetch_every_good_looking_token_asks_for_it() -> None:
    one = issuer(**REMOTE)
    for kid in ("key-1", ...):
        assert TokenVerifier([one]).verify(signer().token(kid=kid), NOW) == UnknownKey(one)


def test_the_rotation_of_an_issuer_that_writes_no_kid_is_noticed_by_the_signature() -> None:
    old, new = signer(), signer("RS256", "key-2", 2)
    one = issuer(**REMOTE)
    found = TokenVerifier([one])
    found.replace_keys(one, key_set(old))
    token = new.token(kid=...)
    assert found.verify(token, NOW) == UnknownKey(one)
    assert found.verify(token, NOW) is Refusal.INVALID, "asked for once, while the keys are the same"
    found.replace_keys(one, key_set(new))
    assert found.verify(token, NOW) == ALICE


def test_the_rotation_of_keys_without_names_is_noticed_by_the_signature() -> None:
    one = issuer(**REMOTE)
    found = TokenVerifier([one])
    found.replace_keys(one, key_set(signer("RS256", None)))
    assert found.verify(signer("RS256", "any", 2).token(), NOW) == UnknownKey(one)


# What is remembered


def test_what_has_been_proved_is_not_proved_again(checks: list[bytes]) -> None:
    found, token = verifier(), signer().token()
    for _ in range(5):
        assert found.verify(token, NOW) == ALICE
    assert checks == [token]


def test_the_whole_token_is_what_is_remembered(checks: list[bytes]) -> None:
    found, token = verifier(), signer().token()
    assert found.verify(token, NOW) == ALICE
    head, _, signature = token.rpartition(b".")
    for other in (with_other_signature(token), token[:-1], token + b"A", token + b"=", b" " + token, head):
        assert found.verify(other, NOW) is Refusal.INVALID
    bob = signer().token(claims(sub="bob"))
    assert found.verify(bob[: bob.rindex(b".")] + b"." + signature, NOW) is Refusal.INVALID
    assert found.verify(token, NOW) == ALICE


def test_what_is_remembered_ends_with_the_token(checks: list[bytes]) -> None:
    found, token = verifier(leeway=0.0), signer().token(claims(exp=NOW + 10))
    assert found.verify(token, NOW) == ALICE
    assert found.verify(token, NOW + 9.999) == ALICE
    assert len(checks) == 1
    assert found.verify(token, NOW + 10) is Refusal.INVALID
    assert found.verify(token, NOW + 10) is Refusal.INVALID


def test_the_leeway_does_not_stretch_what_is_remembered(checks: list[bytes]) -> None:
    found, token = verifier(), signer().token(claims(exp=NOW + 10))
    assert found.verify(token, NOW) == ALICE
    for count in (2, 3):
        assert found.verify(token, NOW + 10) == ALICE
        assert len(checks) == count
        assert not found._proved
    assert found.verify(token, NOW + 40) is Refusal.INVALID


def test_new_keys_empty_the_memory() -> None:
    one = issuer()
    found = TokenVerifier([one])
    found.replace_keys(one, key_set(signer()))
    token = signer().token()
    assert found.verify(token, NOW) == ALICE
    found.replace_keys(one, key_set(signer("RS256", "key-2", 2)))
    assert found.verify(token, NOW) is Refusal.INVALID
    found.replace_keys(one, key_set(signer()))
    assert found.verify(token, NOW) == ALICE


def test_the_memory_can_be_emptied(checks: list[bytes]) -> None:
    found, token = verifier(), signer().token()
    for count in (1, 2):
        assert found.verify(token, NOW) == ALICE
        assert len(checks) == count
        found.clear()


def test_a_token_whose_signature_failed_is_not_checked_again_with_the_same_keys(checks: list[bytes]) -> None:
    one = issuer()
    found = TokenVerifier([one])
    found.replace_keys(one, key_set(signer()))
    token = signer("RS256", "key-1", 2).token()
    for _ in range(5):
        assert found.verify(token, NOW) is Refusal.INVALID
    assert len(checks) == 1
    found.replace_keys(one, key_set(signer("RS256", "key-1", 2)))
    assert found.verify(token, NOW) == ALICE


def test_memory_is_bounded_and_keeps_what_is_used(
    monkeypatch: pytest.MonkeyPatch, checks: list[bytes]
) -> None:
    monkeypatch.setattr(jwt, "MAX_PROVED", 3)
    monkeypatch.setattr(jwt, "MAX_REFUSED", 3)
    ours = signer("HS256")
    found = verifier(ours)
    used, *others = (ours.token(claims(sub=f"user {number}")) for number in range(10))
    bad = [with_other_signature(token) for token in others]
    for good, wrong in zip(others, bad, strict=True):
        assert isinstance(found.verify(used, NOW), Identity)
        assert isinstance(found.verify(good, NOW), Identity)
        assert found.verify(wrong, NOW) is Refusal.INVALID
    assert len(found._proved) == len(found._refused) == 3
    assert checks.count(used) == 1
    checks.clear()
    found.verify(others[0], NOW)
    found.verify(bad[0], NOW)
    assert checks == [others[0], bad[0]], "these had been forgotten"


def test_a_flood_of_bad_tokens_does_not_push_out_good_ones(
    monkeypatch: pytest.MonkeyPatch, checks: list[bytes]
) -> None:
    monkeypatch.setattr(jwt, "MAX_PROVED", 3)
    ours = signer("HS256")
    found, token = verifier(ours), ours.token()
    found.verify(token, NOW)
    for number in range(50):
        bad = with_other_signature(ours.token(claims(sub=f"user {number}")))
        assert found.verify(bad, NOW) is Refusal.INVALID
    checks.clear()
    assert found.verify(token, NOW) == ALICE
    assert not checks


# Whatever is sent


@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_refused(token: bytes) -> None:
    assert verifier().verify(token, NOW) is Refusal.INVALID
    assert verifier().verify(token + b"." + token + b"." + token, NOW) is Refusal.INVALID


@settings(deadline=None)
@given(st.sampled_from(["RS256", "ES256", "HS256"]), st.data())
def test_no_token_that_differs_in_a_byte_is_accepted(algorithm: str, data: st.DataObject) -> None:
    ours = signer(algorithm)
    token = ours.token()
    at = data.draw(st.integers(0, len(token) - 1))
    kind = data.draw(st.sampled_from(["replace", "insert", "delete"]))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    changed = token[:at] + (b"" if kind == "delete" else byte) + token[at + (kind != "insert") :]
    if changed != token:
        assert verifier(ours).verify(changed, NOW) is Refusal.INVALID


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["alg", "typ", "kid", "crit", "jwk", "enc", "cty", "other"]), json_values
    ),
    st.dictionaries(st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "scope", "sub"]), json_values),
)
def test_no_header_and_no_claims_raise(header: dict[str, object], told: dict[str, object]) -> None:
    ours = signer("HS256")
    try:
        token = ours.token(claims(**told), **header)
    except UnicodeEncodeError:
        return
    assert isinstance(verifier(ours).verify(token, NOW), (Identity, Refusal))


@pytest.mark.parametrize("fault", [RecursionError, OverflowError, TypeError, MemoryError, KeyError])
def test_a_fault_anywhere_is_a_refusal(monkeypatch: pytest.MonkeyPatch, fault: type[Exception]) -> None:
    def broken(*_: object) -> None:
        raise fault

    for place in ("end_of", "identity_from"):
        with monkeypatch.context() as patch:
            patch.setattr(jwt, place, broken)
            found = verifier()
            assert found.verify(signer().token(), NOW) is Refusal.INVALID
            assert not found._proved


# What it costs


def seconds(work: Callable[[], object], times: int) -> float:
    """The best of some rounds, so that a busy machine does not count."""
    gc.collect()
    return min(timeit.repeat(work, number=times, repeat=9)) / times


def test_a_remembered_token_costs_about_what_a_key_costs() -> None:
    found, token = verifier(), signer().token()
    text, key = api_keys.issue("laptop", NOW)
    keys, presented = {key.id: key}, text.encode()
    assert found.verify(token, NOW) == ALICE
    of_a_token = seconds(lambda: found.verify(token, NOW), 5000)
    of_a_key = seconds(lambda: api_keys.verify(keys, presented, NOW), 5000)
    assert of_a_token < 3 * of_a_key  # 1.1 to 1.4 times; the token is 9 to 17 times as long
    assert of_a_token < 10e-6


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_first_check_takes_less_than_a_millisecond(algorithm: str) -> None:
    found, token = verifier(signer(algorithm)), signer(algorithm).token()

    def first() -> None:
        found.clear()
        assert found.verify(token, NOW) == ALICE

    assert seconds(first, 20) < 1e-3  # 0.08 and 0.12 ms


def test_the_remembered_ones_say_nothing_of_their_tokens() -> None:
    found, token = verifier(), signer().token()
    found.verify(token, NOW)
    shown = repr(vars(found))
    for part in token.split(b"."):
        assert part.decode() not in shown


def test_a_signer_of_the_tests_signs_what_python_jose_accepts() -> None:
    """Else all that is refused here could be refused for a fault of the tests."""
    from jose import jws

    for algorithm in ALGORITHMS:
        ours: Signer = signer(algorithm)
        key = ours.key if isinstance(ours.key, bytes) else ours.pem().decode()
        assert jws.verify(ours.token(), key, [algorithm])
    assert jwks(signer().jwk()).startswith(b'{"keys": [{"kid": "key-1"')
