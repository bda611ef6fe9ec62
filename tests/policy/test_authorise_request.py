"""What a request asks for, against what its caller was granted: models, cloud, tools, options."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.identity.limits import NO_LIMITS, Limits
from proxy.policy.access import Guard, Policy, authorise_request, authorise_route, guard
from proxy.policy.body import NO_FACTS, Facts
from proxy.policy.model_names import ModelName
from proxy.policy.routes import ROUTES, ModelPlace, Route, Scope

ROWS = {f"{route.method} {route.path}": route for route in ROUTES}
CHAT, GENERATE, EMBED = (ROWS[f"POST /api/{name}"] for name in ("chat", "generate", "embed"))
CREATE, PULL, COPY = (ROWS[f"POST /api/{name}"] for name in ("create", "pull", "copy"))
OPENAI, RESPONSES, MESSAGES, VECTORS = (
    ROWS[f"POST /v1/{name}"] for name in ("chat/completions", "responses", "messages", "embeddings")
)
TRANSCRIPTIONS, MODEL = ROWS["POST /v1/audio/transcriptions"], ROWS["GET /v1/models/{model}"]

ALL = frozenset(scope.value for scope in Scope)
CLOSED, OPEN = Policy(cloud=False), Policy(cloud=True)

LLAMA, LLAMA_7B = ModelName("llama:latest", False), ModelName("llama:7b", False)
OTHER, NO_NAME = ModelName("other:latest", False), ModelName("", False)
CLOUD, LLAMA_CLOUD = ModelName("gpt-oss:cloud", True), ModelName("llama:cloud", True)
NO_CLOUD_NAME = ModelName("", True)


def key(
    models: tuple[str, ...] | None = None,
    cloud: bool = False,
    scopes: frozenset[str] = ALL - {"account"},
    **limits: int,
) -> Identity:
    return Identity("api_key", "0123456789", "laptop", scopes, models, cloud, Limits(**limits))


def code(identity: Identity, facts: Facts, policy: Policy = CLOSED, route: Route = CHAT) -> str:
    """The refusal's code, or nothing."""
    try:
        authorise_request(identity, route, facts, policy)
    except ProxyError as error:
        return error.code
    return ""


def named(*names: ModelName) -> Facts:
    return Facts(names=names)


# Models and the cloud
# key's models | cloud grant | policy | names | code

MODELS = ("llama", "llama:cloud")
NAMES = [
    (None, False, CLOSED, (LLAMA,), ""),
    (None, False, CLOSED, (OTHER, LLAMA), ""),
    (None, False, CLOSED, (NO_NAME,), ""),
    (None, False, CLOSED, (), ""),
    (None, False, CLOSED, (CLOUD,), "cloud_denied"),
    (None, False, OPEN, (CLOUD,), "cloud_denied"),
    (None, True, CLOSED, (CLOUD,), "cloud_denied"),
    (None, True, OPEN, (CLOUD,), ""),
    (None, False, OPEN, (LLAMA, CLOUD), "cloud_denied"),
    (None, False, OPEN, (CLOUD, LLAMA), "cloud_denied"),
    (None, False, OPEN, (NO_CLOUD_NAME,), "cloud_denied"),
    (None, True, OPEN, (NO_CLOUD_NAME,), ""),
    (MODELS, False, CLOSED, (LLAMA,), ""),
    (MODELS, False, CLOSED, (LLAMA_7B,), "model_denied"),
    (MODELS, False, CLOSED, (OTHER,), "model_denied"),
    (MODELS, False, CLOSED, (NO_NAME,), "model_denied"),
    (MODELS, False, CLOSED, (LLAMA, OTHER), "model_denied"),
    (MODELS, False, CLOSED, (OTHER, LLAMA), "model_denied"),
    (MODELS, True, OPEN, (CLOUD,), "model_denied"),
    (MODELS, False, CLOSED, (CLOUD,), "model_denied"),
    (MODELS, False, CLOSED, (LLAMA_CLOUD,), "cloud_denied"),
    (MODELS, False, OPEN, (LLAMA_CLOUD,), "cloud_denied"),
    (MODELS, True, CLOSED, (LLAMA_CLOUD,), "cloud_denied"),
    (MODELS, True, OPEN, (LLAMA_CLOUD,), ""),
    (MODELS, True, OPEN, (NO_CLOUD_NAME,), "model_denied"),
    (("*",), False, OPEN, (LLAMA,), ""),
    (("*",), False, OPEN, (CLOUD,), "cloud_denied"),
    (("*",), True, OPEN, (CLOUD,), ""),
    (("*",), False, OPEN, (NO_NAME,), "model_denied"),
    ((), True, OPEN, (LLAMA,), "model_denied"),
    ((), True, OPEN, (CLOUD,), "model_denied"),
]


@pytest.mark.parametrize(("models", "cloud", "policy", "names", "expected"), NAMES)
def test_a_model_needs_a_pattern_and_a_cloud_model_the_grant_and_an_open_cloud(
    models: tuple[str, ...] | None, cloud: bool, policy: Policy, names: tuple[ModelName, ...], expected: str
) -> None:
    for route in (CHAT, CREATE, COPY, MESSAGES, MODEL):
        assert code(key(models, cloud), named(*names), policy, route) == expected


@pytest.mark.parametrize(("cloud", "policy"), [(True, CLOSED), (False, OPEN), (False, CLOSED)])
def test_another_server_in_create_is_like_the_cloud(cloud: bool, policy: Policy) -> None:
    facts = Facts(names=(LLAMA,), remote=True)
    assert code(key(None, cloud), facts, policy, CREATE) == "cloud_denied"
    assert code(key(MODELS, cloud), facts, policy, CREATE) == "cloud_denied"
    assert code(key(MODELS, cloud), replace(facts, names=(OTHER,)), policy, CREATE) == "model_denied"
    assert code(key(MODELS, True), facts, OPEN, CREATE) == ""


def test_anybody_whom_the_operator_let_in_without_a_key_stays_out_of_the_cloud() -> None:
    assert code(ANONYMOUS, named(LLAMA), OPEN) == ""
    assert code(ANONYMOUS, named(CLOUD), OPEN) == "cloud_denied"
    assert code(ANONYMOUS, Facts(names=(LLAMA,), web_tools=True), OPEN, MESSAGES) == "scope_denied"


# Tools and flags


@pytest.mark.parametrize("route", [MESSAGES, RESPONSES], ids=lambda route: route.path)
@pytest.mark.parametrize("models", [None, MODELS])
def test_a_tool_that_acts_as_the_servers_account_needs_that_scope(
    route: Route, models: tuple[str, ...] | None
) -> None:
    facts = Facts(names=(LLAMA,), web_tools=True)
    for cloud in (True, False):
        for policy in (OPEN, CLOSED):
            assert code(key(models, cloud), facts, policy, route) == "scope_denied"
    assert code(key(models, False, ALL), facts, OPEN, route) == ""
    assert code(key(models, True, ALL), facts, CLOSED, route) == "cloud_denied"


@pytest.mark.parametrize("models", [MODELS, ("*",)])
def test_pulling_without_tls_is_not_for_keys_with_some_models(models: tuple[str, ...]) -> None:
    facts = Facts(names=(LLAMA,), insecure=True)
    assert code(key(models), facts, route=PULL) == "option_denied"
    assert code(key(), facts, route=PULL) == ""
    assert code(key(max_context=1), facts, route=PULL) == ""


# Options: limits | route | what is asked for | the option that is refused, or nothing

INF = float("inf")
BY_ROUTE = {
    GENERATE: "num_predict",
    CHAT: "num_predict",
    OPENAI: "max_tokens",
    RESPONSES: "max_output_tokens",
}
BY_ROUTE |= {MESSAGES: "max_tokens", ROWS["POST /v1/completions"]: "max_tokens"}
OPTIONS = [
    ({"max_context": 4096}, CHAT, Facts(), ""),
    *(({"max_context": 4096}, CHAT, Facts(options={"num_ctx": n}), "") for n in (1, 4096, 0, -1, -(2**63))),
    *(
        ({"max_context": 4096}, route, Facts(options={"num_ctx": value}), "num_ctx")
        for route in (CHAT, EMBED, CREATE)
        for value in (
            4097,
            2**63,
            10**30,
            -(2**63) - 1,
            4096.0,
            4096.9,
            1.0,
            -1.0,
            INF,
            "4096",
            "?",
            True,
            False,
        )
    ),
    ({"max_context": 4096}, CHAT, Facts(options={"num_predict": 10**9}), ""),
    ({"max_context": 4096}, CHAT, Facts(keep_alive=-1), ""),
    *(
        ({"max_output_tokens": 256}, route, Facts(options={name: 256}), "")
        for route, name in BY_ROUTE.items()
    ),
    *(({"max_output_tokens": 256}, route, Facts(options={name: 1}), "") for route, name in BY_ROUTE.items()),
    *(({"max_output_tokens": 256}, route, Facts(), name) for route, name in BY_ROUTE.items()),
    *(
        ({"max_output_tokens": 256}, route, Facts(options={name: value}), name)
        for route, name in BY_ROUTE.items()
        for value in (257, 0, -1, -2, 2**63, 256.0, 1.5, "256", "?", True)
    ),
    ({"max_output_tokens": 256}, OPENAI, Facts(options={"max_tokens": 1, "num_predict": 999}), "num_predict"),
    ({"max_output_tokens": 256}, OPENAI, Facts(options={"num_predict": 1}), "max_tokens"),
    ({"max_output_tokens": 256}, CHAT, Facts(options={"max_tokens": 1}), "num_predict"),
    ({"max_output_tokens": 256}, RESPONSES, Facts(options={"max_tokens": 1}), "max_output_tokens"),
    (
        {"max_output_tokens": 256},
        OPENAI,
        Facts(options={"max_tokens": 1, "max_completion_tokens": 999}),
        "max_completion_tokens",
    ),
    ({"max_output_tokens": 256}, OPENAI, Facts(options={"max_completion_tokens": 1}), "max_tokens"),
    *(
        ({"max_output_tokens": 256}, route, Facts(), "")
        for route in (EMBED, VECTORS, PULL, COPY, CREATE, MODEL)
    ),
    ({"max_output_tokens": 256}, CREATE, Facts(options={"num_predict": 257}), "num_predict"),
    ({"max_output_tokens": 256}, CREATE, Facts(options={"num_predict": 256}), ""),
    *(
        ({"max_keep_alive": 3600}, CHAT, Facts(keep_alive=v), "")
        for v in (None, 0, 3600, 3600.0, "1h", "0", "59m")
    ),
    *(
        ({"max_keep_alive": 3600}, CHAT, Facts(keep_alive=value), "keep_alive")
        for value in (3601, 3600.1, -1, "-1s", "61m", "", "x", "?", True, 10**400, 1e300, INF)
    ),
    *(
        ({"min_keep_alive": 60}, CHAT, Facts(keep_alive=v), "")
        for v in (None, 60, 60.5, "1m", "9h", -1, "-1ns")
    ),
    *(
        ({"min_keep_alive": 60}, CHAT, Facts(keep_alive=value), "keep_alive")
        for value in (0, 59, 59.9, "0", "59s", "-0.1ns", "", "?", False, 10**400, 1e10, 1e300, INF)
    ),
    ({"min_keep_alive": 60, "max_keep_alive": 60}, CHAT, Facts(keep_alive="1m"), ""),
    *(
        ({limit: 10}, CHAT, Facts(options={"num_predict": 10, option: value}), option)
        for limit in ("max_context", "max_output_tokens", "min_keep_alive", "max_keep_alive")
        for option in ("num_gpu", "num_thread")
        for value in (0, 1, -1, "?")
    ),
    *(
        ({limit: 10}, CHAT, Facts(options={"num_predict": 10}, debug=True), "_debug_render_only")
        for limit in ("max_context", "max_output_tokens", "min_keep_alive", "max_keep_alive")
    ),
]


@pytest.mark.parametrize(("limits", "route", "facts", "refused"), OPTIONS)
def test_an_option_is_held_to_its_bound(
    limits: dict[str, int], route: Route, facts: Facts, refused: str
) -> None:
    asked = replace(facts, names=(LLAMA,))
    if not refused:
        authorise_request(key(**limits), route, asked, CLOSED)
        return
    with pytest.raises(ProxyError) as caught:
        authorise_request(key(**limits), route, asked, CLOSED)
    assert caught.value.code == "option_denied"
    assert f"'{refused}'" in caught.value.message
    bounds = [str(bound) for bound in limits.values()]
    assert "leave it out" in caught.value.message or any(bound in caught.value.message for bound in bounds)


@pytest.mark.parametrize(("limits", "route", "facts", "refused"), OPTIONS)
def test_a_key_without_bounds_may_ask_for_any_option(
    limits: dict[str, int], route: Route, facts: Facts, refused: str
) -> None:
    assert code(key(), replace(facts, names=(LLAMA,)), route=route) == ""
    assert code(key(MODELS), replace(facts, names=(LLAMA,)), route=route) == ""


# What refusals say


def test_a_refusal_names_what_is_missing_and_nothing_that_others_have() -> None:
    identity = key(("llama", "acme/confidential-*"))
    for name, policy in ((OTHER, CLOSED), (NO_NAME, CLOSED), (CLOUD, OPEN)):
        with pytest.raises(ProxyError) as caught:
            authorise_request(identity, CHAT, named(name), policy)
        assert caught.value.status == 403
        assert name.canonical in caught.value.message
        assert "confidential" not in caught.value.message
        assert "laptop" not in caught.value.message


def test_a_cloud_that_is_closed_is_told_from_a_grant_that_is_missing() -> None:
    texts = []
    for policy in (CLOSED, OPEN):
        with pytest.raises(ProxyError) as caught:
            authorise_request(key(), CHAT, named(CLOUD), policy)
        assert "gpt-oss:cloud" in caught.value.message
        texts.append(caught.value.message)
    assert "policy.cloud" in texts[0]
    assert "grant" in texts[1]


# How closely requests are looked at

KINDS = {
    "unlimited": key(),
    "with the cloud": key(cloud=True),
    "with account": key(scopes=ALL),
    "with both": key(cloud=True, scopes=ALL),
    "some models": key(MODELS),
    "some models and both": key(MODELS, True, ALL),
    "no model": key(()),
    "bounded": key(max_context=1),
    "bounded and both": key(None, True, ALL, max_context=1),
    "anonymous": ANONYMOUS,
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", [CLOSED, OPEN])
def test_a_body_goes_on_unread_only_where_nothing_in_it_could_be_forbidden(
    route: Route, kind: str, policy: Policy
) -> None:
    """With all there is to ask for, a request that is not looked at would be granted as a whole."""
    identity = KINDS[kind]
    how = guard(identity, route, policy)
    if route.model is ModelPlace.NONE:
        assert how is Guard.NONE
        return
    everything = Facts(
        names=(CLOUD, OTHER),
        remote=route is CREATE,
        web_tools=route in (MESSAGES, RESPONSES),
        insecure=True,
        debug=True,
        keep_alive=-1,
        options=dict.fromkeys(("num_ctx", "num_predict", "num_gpu", "max_tokens"), 10**9),
    )
    if how is Guard.NONE:
        assert code(identity, everything, policy, route) == ""
    if how is Guard.SCAN:  # only what has a word of its own is refused
        local = replace(everything, names=(OTHER,), web_tools=False)
        assert code(identity, local, policy, route) == ""
        assert route is not CREATE
        assert route is not MODEL
    if kind == "with both" and policy is OPEN:
        assert how is Guard.NONE
    if kind == "unlimited" and route.model not in (ModelPlace.BODY_CREATE, ModelPlace.PATH):
        assert how is Guard.SCAN


@pytest.mark.parametrize("kind", KINDS)
def test_transcriptions_are_closed_to_keys_with_some_models(kind: str) -> None:
    identity = KINDS[kind]
    if identity.models is None:
        authorise_route(identity, TRANSCRIPTIONS, CLOSED)
    else:
        with pytest.raises(ProxyError, match="transcriptions") as caught:
            authorise_route(identity, TRANSCRIPTIONS, CLOSED)
        assert caught.value.code == "model_denied"


def test_transcriptions_are_closed_to_keys_whose_answers_are_bounded() -> None:
    with pytest.raises(ProxyError, match="transcription") as caught:
        authorise_route(key(max_output_tokens=10), TRANSCRIPTIONS, CLOSED)
    assert caught.value.code == "option_denied"
    authorise_route(key(max_context=10), TRANSCRIPTIONS, CLOSED)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scope is Scope.ACCOUNT], ids=str)
def test_the_servers_account_needs_the_scope_and_an_open_cloud(route: Route) -> None:
    authorise_route(key(scopes=ALL), route, OPEN)
    for scopes, policy, expected in (
        (ALL, CLOSED, "cloud_denied"),
        (ALL - {"account"}, OPEN, "scope_denied"),
        (ALL - {"account"}, CLOSED, "scope_denied"),
    ):
        with pytest.raises(ProxyError) as caught:
            authorise_route(key(cloud=True, scopes=scopes), route, policy)
        assert caught.value.code == expected


# Any request

names = st.sampled_from([LLAMA, LLAMA_7B, OTHER, NO_NAME, CLOUD, LLAMA_CLOUD, NO_CLOUD_NAME])
values = st.one_of(st.none(), st.integers(), st.floats(), st.booleans(), st.text(max_size=5))
facts = st.builds(
    Facts,
    names=st.lists(names, max_size=3).map(tuple),
    remote=st.booleans(),
    web_tools=st.booleans(),
    insecure=st.booleans(),
    debug=st.booleans(),
    keep_alive=values,
    options=st.dictionaries(st.sampled_from(["num_ctx", "num_predict", "num_gpu", "max_tokens"]), values),
)
bounds = st.none() | st.integers(1, 2**53)
limits = st.builds(Limits, bounds, bounds, bounds, bounds)


@given(facts, st.sampled_from(ROUTES), st.booleans(), limits, st.sampled_from([None, MODELS, (), ("*",)]))
def test_whoever_has_more_is_refused_no_more(
    asked: Facts, route: Route, opened: bool, bounded: Limits, models: tuple[str, ...] | None
) -> None:
    less = Identity("jwt", None, "x", ALL - {"account"}, models, False, bounded)
    more = Identity("jwt", None, "x", ALL, None, True, NO_LIMITS)
    refused = code(less, asked, Policy(opened), route)
    assert refused in ("", "model_denied", "cloud_denied", "scope_denied", "option_denied")
    assert code(more, asked, Policy(True), route) == ""
    for better in (
        replace(less, models=None),
        replace(less, limits=NO_LIMITS),
        replace(less, cloud=True),
        replace(less, scopes=ALL),
    ):
        assert refused or not code(better, asked, Policy(opened), route)


@given(limits, st.sampled_from([None, MODELS]), st.sampled_from(ROUTES))
def test_a_request_that_asks_for_nothing_lacks_at_most_a_bound_on_its_answer(
    bounded: Limits, models: tuple[str, ...] | None, route: Route
) -> None:
    refused = code(Identity("jwt", None, "x", ALL, models, False, bounded), NO_FACTS, CLOSED, route)
    assert refused == ("option_denied" if bounded.max_output_tokens and route in BY_ROUTE else "")
