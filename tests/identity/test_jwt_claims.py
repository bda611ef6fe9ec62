"""What claims grant: by the issuer's settings, and nothing where they are not what they should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.identity import Identity
from proxy.identity.issuer import Issuer
from proxy.identity.jwt_claims import SCOPES, end_of, identity_from
from proxy.identity.limits import NO_LIMITS, Limits

from .tokens import AUDIENCE, NOW, claims, issuer

NONSENSE: list[object] = [None, True, 1, 1.5, {}, {"a": "read"}]


def granted(settings: dict[str, object], **told: object) -> Identity:
    return identity_from(claims(**told), issuer(**settings))


# Until when, and for whom


@pytest.mark.parametrize(
    ("told", "now", "good"),
    [
        ({"exp": NOW}, NOW - 0.001, True),
        ({"exp": NOW}, NOW + 29.9, True),
        ({"exp": NOW}, NOW + 30, False),
        ({"exp": int(NOW)}, NOW + 31, False),
        ({"exp": NOW + 0.5}, NOW + 30.4, True),
        ({"exp": 0}, NOW, False),
        ({"exp": -1}, NOW, False),
        ({"exp": 10**30}, NOW, True),
        ({"exp": ...}, NOW, False),
        ({"nbf": NOW + 30}, NOW, True),
        ({"nbf": NOW + 30.1}, NOW, False),
        ({"nbf": NOW + 30.1}, NOW + 1, True),
        ({"nbf": 0, "iat": 0}, NOW, True),
        ({"nbf": ..., "iat": ...}, NOW, True),
        ({"iat": NOW + 30}, NOW, True),
        ({"iat": NOW + 31}, NOW, False),
    ],
)
def test_a_token_holds_for_its_time_and_the_leeway(told: dict[str, object], now: float, good: bool) -> None:
    assert (end_of(claims(**told), issuer(), now) is not None) is good


def test_without_a_leeway_a_token_ends_on_its_very_second() -> None:
    strict = issuer(leeway=0.0)
    assert end_of(claims(exp=NOW), strict, NOW - 0.001) == NOW
    assert end_of(claims(exp=NOW), strict, NOW) is None
    assert end_of(claims(nbf=NOW), strict, NOW) is not None
    assert end_of(claims(nbf=NOW + 0.001), strict, NOW) is None


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [None, True, False, "1800000300", [], [NOW], {}, {"a": 1}, ""])
def test_a_time_that_is_no_number_is_none(name: str, value: object) -> None:
    assert end_of(claims(**{name: value}), issuer(), NOW) is None


@pytest.mark.parametrize(
    ("audience", "good"),
    [
        (AUDIENCE, True),
        ([AUDIENCE], True),
        (["account", AUDIENCE], True),
        (["account", "second"], True),
        ("account", False),
        ("OLLAMA", False),
        ("ollama ", False),
        (f"account {AUDIENCE}", False),
        ("", False),
        ([], False),
        ([[AUDIENCE]], False),
        ([AUDIENCE, 1], False),
        ([AUDIENCE, None], False),
        ({AUDIENCE: 1}, False),
        (None, False),
        (True, False),
        (..., False),
    ],
)
def test_a_token_must_be_for_us(audience: object, good: bool) -> None:
    one = issuer(audiences=frozenset({AUDIENCE, "second"}))
    assert (end_of(claims(aud=audience), one, NOW) is not None) is good


# Scopes


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("read inference", {"read", "inference"}),
        ("openid profile read", {"read"}),
        ("read  push manage account", {"read", "push", "manage", "account"}),
        (["inference", "email"], {"inference"}),
        (["read", 1, None, ["push"], {"account": 1}], {"read"}),
        ("admin read", {"read"}),
        (["admin"], set()),
        ("", set()),
        ([], set()),
        ("READ Inference", set()),
        ("read,inference", set()),
        ("read\tinference", set()),
        ("read\u00a0inference", set()),
        *((value, set()) for value in NONSENSE),
    ],
)
def test_only_known_scopes_count_and_admin_never(scope: object, scopes: set[str]) -> None:
    assert granted({"default_scopes": frozenset({"push"})}, scope=scope).scopes == scopes


def test_default_scopes_stand_in_for_a_missing_claim_only() -> None:
    default = frozenset({"read", "inference"})
    assert granted({"default_scopes": default}, scope=...).scopes == default
    assert granted({}, scope=...).scopes == frozenset()
    assert granted({"default_scopes": default, "scope_claim": ""}, scope="push").scopes == default
    assert granted({"default_scopes": frozenset({"admin", "read"})}, scope=...).scopes == {"read"}


@pytest.mark.parametrize(
    ("name", "told", "scopes"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["read", "offline_access"]}}, {"read"}),
        ("resource_access.ollama.roles", {"resource_access": {"ollama": {"roles": ["push"]}}}, {"push"}),
        ("https://a.example/scope", {"https://a.example/scope": "read"}, {"read"}),
        ("a.b", {"a.b": "read", "a": {"b": "push"}}, {"read"}),
        ("a.b", {"a.b": None, "a": {"b": "push"}}, set()),
        ("a.b", {"a": {"c": "push"}}, set()),
        ("a.b", {"a": "push"}, set()),
        ("a.b", {"a": ["b"]}, set()),
        ("a.b.c", {"a": {"b.c": "push"}}, set()),
        ("a.b", {}, set()),
    ],
)
def test_a_claim_may_stand_inside_others(name: str, told: dict[str, object], scopes: set[str]) -> None:
    assert granted({"scope_claim": name}, scope="account", **told).scopes == scopes


# Models, cloud, limits, name


@pytest.mark.parametrize(
    ("told", "models"),
    [
        (["llama3.2:*", "qwen3"], ("llama3.2:*", "qwen3")),
        ("llama3.2:* qwen3", ("llama3.2:*", "qwen3")),
        ("llama3.2:*,qwen3, hf.co/acme/*", ("llama3.2:*", "qwen3", "hf.co/acme/*")),
        (["qwen3", "qwen3", ""], ("qwen3",)),
        ("*", ("*",)),
        ("", ()),
        ([], ()),
        (["qwen3", 1], ()),
        (["qwen3", None], ()),
        ([["qwen3"]], ()),
        (..., ()),
        *((value, ()) for value in NONSENSE),
    ],
)
def test_models_are_those_that_are_told_or_none(told: object, models: tuple[str, ...]) -> None:
    caller = granted({"models_claim": "models"}, models=told)
    assert caller.models == models
    assert caller.limited


def test_without_a_claim_for_models_every_local_one_is_granted() -> None:
    assert granted({}, models=["qwen3"]).models is None


@pytest.mark.parametrize("told", [..., False, "true", 1, "yes", [True], {"a": True}, None])
def test_only_true_opens_the_cloud(told: object) -> None:
    assert granted({"cloud_claim": "cloud"}, cloud=True).cloud is True
    assert granted({"cloud_claim": "cloud"}, cloud=told).cloud is False
    assert granted({}, cloud=True).cloud is False


def test_limits_are_taken_over() -> None:
    told = {"max_context": 8192, "max_keep_alive": 600}
    caller = granted({"limits_claim": "limits"}, limits=told)
    assert caller.limits == Limits(max_context=8192, max_keep_alive=600)
    assert caller.scopes == {"read", "inference"}
    assert granted({"limits_claim": "limits"}, limits={}).limits == NO_LIMITS
    assert granted({}, limits=told).limits == NO_LIMITS


@pytest.mark.parametrize(
    "told",
    [..., None, True, 1, "max_context=1", [], [{"max_context": 1}], {"max_contxt": 1}, {"max_context": 0},
     {"max_context": "8192"}, {"max_context": None}, {"max_context": 1.5}, {"max_context": True}],
)  # fmt: skip
def test_limits_that_cannot_be_read_grant_nothing_at_all(told: object) -> None:
    caller = granted({"limits_claim": "limits", "default_scopes": SCOPES}, limits=told)
    assert caller.scopes == frozenset()


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("alice", "alice"),
        ("alice@example.com", "alice@example.com"),
        ("6f1b7d0e-2b4e-4f2e-8a35-7a2c0f2f0d11", "6f1b7d0e-2b4e-4f2e-8a35-7a2c0f2f0d11"),
        ("build server 2", "build server 2"),
        ("a" * 64, "a" * 64),
        ("a" * 65, None),
        ("", None),
        (" alice", None),
        ("alice ", None),
        ("-rf", None),
        ("al\nice", None),
        ("alice\n", None),
        ("\x1b[31malice", None),
        ('alice"} 1', None),
        ("\u0430lice", None),
        ("auth0|alice", "auth0|alice"),
        (..., None),
        *((value, None) for value in NONSENSE),
    ],
)
def test_a_name_that_cannot_stand_in_a_log_is_left_out(told: object, name: str | None) -> None:
    caller = granted({}, sub=told)
    assert caller.key_name == name
    assert caller.scopes == {"read", "inference"}


def test_whoever_comes_with_a_token_is_known_as_such() -> None:
    caller = granted({"name_claim": ""}, sub="alice")
    assert (caller.auth, caller.key_id, caller.key_name) == ("jwt", None, None)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["read", "admin"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["aud", "exp", "nbf", "iat", "scope", "m", "c", "l", "sub"]), anything),
    st.sets(st.sampled_from([*SCOPES, "admin"])),
)
def test_whatever_the_claims_are_no_more_is_granted_than_can_be(
    told: dict[str, object], default: set[str]
) -> None:
    one: Issuer = issuer(
        models_claim="m", cloud_claim="c", limits_claim="l", default_scopes=frozenset(default)
    )
    end_of(told, one, NOW)
    caller = identity_from(told, one)
    assert caller.scopes <= SCOPES
    assert caller.models is not None
    assert caller.cloud is (told.get("c") is True)
    assert caller.scopes == frozenset() or isinstance(told.get("l"), dict)
