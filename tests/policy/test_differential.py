"""What is let through, against what Ollama would do with it: nothing that was not granted, to anybody.

Ollama's side is told by the Go program in ``ollama_reader``, and by a real Ollama in
`test_differential_real.py`. Our side is what a request goes through: the guard, a look at the bytes or a
parse of the body, the decision.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.guard.judge import Asked, judge
from proxy.guard.scan import Scan
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.identity.limits import NO_LIMITS, Limits
from proxy.policy.access import Guard, Policy, authorise_request, authorise_route, guard
from proxy.policy.body import NO_FACTS, Facts, facts_of_path
from proxy.policy.model_names import Reading, read_name
from proxy.policy.routes import ROUTES as TABLE
from proxy.policy.routes import ModelPlace, Scope

from . import bodies
from .bodies import FORM, PATH, ROUTES, ordinary, strange
from .client_bodies import CLIENTS, Client
from .reader import Effect, OllamaReader, Sent

BODIES_A_ROUTE = 2000
SEED = 20_240_817

ROWS = {f"{route.method} {route.path}": route for route in TABLE}
EVERYTHING = frozenset(scope.value for scope in Scope)
WITHOUT_ACCOUNT = EVERYTHING - {"account"}
ANSWERS = frozenset(
    {"POST /api/generate", "POST /api/chat", "POST /v1/chat/completions", "POST /v1/completions"}
    | {"POST /v1/responses", "POST /v1/messages", "POST /v1/audio/transcriptions"}
)


@dataclass(frozen=True)
class Caller:
    """``allowed`` says of a canonical name whether it was granted, without the matcher that is tested."""

    kind: str
    identity: Identity
    policy: Policy
    allowed: Callable[[str], bool]


def caller(
    kind: str,
    models: tuple[str, ...] | None = None,
    allowed: str = ".*",
    *,
    cloud: bool = False,
    opened: bool = False,
    scopes: frozenset[str] = EVERYTHING,
    limits: Limits = NO_LIMITS,
) -> Caller:
    identity = Identity("api_key", "0123456789", "laptop", scopes, models, cloud, limits)
    return Caller(kind, identity, Policy(opened), lambda name: re.fullmatch(allowed, name) is not None)


CALLERS = (
    caller("one model", ("smollm2",), "smollm2:latest"),
    caller("one tag", ("SmolLM2:135m",), "smollm2:135m"),
    caller("every tag and a namespace", ("smollm2:*", "acme/*"), "(smollm2:|acme/)[^/]+"),
    caller("a namespace of another host", ("hf.co/acme/*",), "hf.co/acme/[^/]+"),
    caller("every local name", ("*",), opened=True),
    caller("no model", (), "(?!)", cloud=True, opened=True),
    caller("one cloud model", ("gpt-oss:cloud",), "gpt-oss:cloud", cloud=True, opened=True),
    caller("a model and the cloud", ("smollm2:*",), "smollm2:.*", cloud=True, opened=True),
    caller("a model and a cloud that is closed", ("smollm2:*",), "smollm2:.*", cloud=True),
    caller("unlimited, cloud closed"),
    caller("unlimited, with the grant, cloud closed", cloud=True),
    caller("unlimited, without the grant, cloud open", opened=True),
    caller("unlimited, with the cloud, without account", cloud=True, opened=True, scopes=WITHOUT_ACCOUNT),
    caller("unlimited, without cloud and account", opened=True, scopes=WITHOUT_ACCOUNT),
    caller("everything", cloud=True, opened=True),
    caller("bounded context", limits=Limits(max_context=4096)),
    caller("bounded context, in the cloud", cloud=True, opened=True, limits=Limits(max_context=4096)),
    caller("bounded output", cloud=True, opened=True, limits=Limits(max_output_tokens=256)),
    caller("no pinning", limits=Limits(max_keep_alive=3600)),
    caller("no unloading", limits=Limits(min_keep_alive=60)),
    caller("a model and all bounds", ("smollm2",), "smollm2:latest", limits=Limits(4096, 256, 60, 3600)),
    Caller("anonymous", ANONYMOUS, Policy(True), lambda _: True),
)


# Our side


@dataclass
class Looked:
    """A request, with what the guards find in it, found once for all callers."""

    sent: Sent
    words: bool = True
    facts: Facts | None = None
    unreadable: bool = False

    def __post_init__(self) -> None:
        route = ROWS[self.sent.route]
        if route.model is ModelPlace.PATH:
            self.facts = facts_of_path(self.sent.body)
            return
        scan = Scan(route)
        scan.feed(self.sent.body)
        self.words = scan.found
        try:
            self.facts = judge(Asked(route, self.sent.content_type.encode() or None), [self.sent.body])
        except ProxyError as error:
            self.unreadable = error.code == "unreadable_body"


def refusal(who: Caller, looked: Looked) -> str:
    """The code of our refusal, or nothing where the request would go on."""
    route = ROWS[looked.sent.route]
    how = guard(who.identity, route, who.policy)
    try:
        authorise_route(who.identity, route, who.policy)
        if how is Guard.NONE:
            return ""
        if how is Guard.SCAN and not looked.words:
            authorise_request(who.identity, route, NO_FACTS, who.policy)
            return ""
        if looked.facts is None:
            return "unreadable_body"
        authorise_request(who.identity, route, looked.facts, who.policy)
    except ProxyError as error:
        return error.code
    return ""


# Ollama's side


def not_granted(who: Caller, route: str, effect: Effect) -> str:
    """What the request would come to that the caller was not granted; nothing where all of it was."""
    identity, limits, options = who.identity, who.identity.limits, effect.options
    if identity.models is not None:
        if not effect.models or not all(map(who.allowed, effect.models)):
            return "model"
        if effect.insecure:
            return "insecure"
    if (effect.cloud or effect.remote) and not (who.policy.cloud and identity.cloud):
        return "cloud"
    if effect.web and not (who.policy.cloud and "account" in identity.scopes):
        return "web"
    if limits == NO_LIMITS:
        return ""
    if effect.debug:
        return "_debug_render_only"
    if not {"num_gpu", "num_thread"}.isdisjoint(options):
        return "num_gpu or num_thread"
    if limits.max_context is not None and options.get("num_ctx", 0) > limits.max_context:
        return "num_ctx"
    if limits.max_output_tokens is not None:
        stated = options.get("num_predict", 0 if route in ANSWERS else 1)
        if not 1 <= stated <= limits.max_output_tokens:
            return "num_predict"
    if effect.keep_alive is not None:
        seconds = effect.keep_alive / 1e9
        if limits.min_keep_alive is not None and seconds < limits.min_keep_alive:
            return "a short keep_alive"
        if limits.max_keep_alive is not None and seconds > limits.max_keep_alive + 1e-6:
            return "a long keep_alive"
    return ""


def holes(looked: Looked, effect: Effect, decide: Callable[[Caller, Looked], str] = refusal) -> list[str]:
    """What was let through that must not be."""
    if effect.refused:
        return []
    found = ((who, not_granted(who, looked.sent.route, effect)) for who in CALLERS)
    return [f"{who.kind}: {what}" for who, what in found if what and not decide(who, looked)]


# Strange bodies


@pytest.fixture(scope="module")
def strange_bodies(ollama_reader: OllamaReader) -> list[tuple[Looked, Effect]]:
    random = Random(SEED)
    sent = [strange(random, route) for route in ROUTES for _ in range(BODIES_A_ROUTE)]
    return list(zip(map(Looked, sent), ollama_reader.ask(sent), strict=True))


def test_nothing_goes_through_that_was_not_granted(strange_bodies: list[tuple[Looked, Effect]]) -> None:
    assert len(strange_bodies) >= 20_000
    for looked, effect in strange_bodies:
        found = holes(looked, effect)
        assert not found, f"{looked.sent} comes to {effect}"


def test_these_bodies_are_a_trial(strange_bodies: list[tuple[Looked, Effect]]) -> None:
    """On every route: some are let through, some forbidden, some unreadable, some refused by Ollama."""
    seen = Counter[tuple[str, str]]()
    for looked, effect in strange_bodies:
        route = looked.sent.route
        seen[route, "refused by Ollama" if effect.refused else "taken by Ollama"] += 1
        seen[route, "unreadable"] += looked.unreadable
        seen[route, "in the cloud"] += effect.cloud and not looked.unreadable
        for who in CALLERS:
            if not effect.refused and not looked.unreadable:
                code = refusal(who, looked)
                seen[route, "forbidden" if code else "let through"] += 1
    for route in ROUTES:
        for what in ("refused by Ollama", "taken by Ollama", "forbidden", "let through"):
            assert seen[route, what] >= 100, (route, what)
        assert seen[route, "unreadable"] >= 100 or route == PATH
        # copy and push never go there; that a name would is told all the same
        assert seen[route, "in the cloud"] >= 20 or route in ("POST /api/copy", "POST /api/push")


def lenient(who: Caller, looked: Looked) -> str:
    """A guard like many that exist: it reads the body with a parser of its own and looks at the model."""
    try:
        members = json.loads(looked.sent.body)
        text = members.get("model") or members.get("name") or ""
        name = read_name(text, Reading.REFERENCE)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return "unreadable_body"
    if who.identity.models is not None and not who.allowed(name.canonical):
        return "model_denied"
    return "cloud_denied" if name.cloud and not (who.policy.cloud and who.identity.cloud) else ""


@pytest.mark.parametrize(
    "route", ["POST /api/show", "POST /api/chat", "POST /v1/embeddings", "DELETE /api/delete"]
)
def test_a_guard_that_reads_less_strictly_is_found_out(
    strange_bodies: list[tuple[Looked, Effect]], route: str
) -> None:
    found = [hole for one in strange_bodies if one[0].sent.route == route for hole in holes(*one, lenient)]
    assert sum(hole.endswith(": model") for hole in found) >= 20
    assert sum(hole.endswith(": cloud") for hole in found) >= 5


# The same, with examples that shrink

NAME_PIECES = (
    *(
        *bodies.BLANKS,
        "cloud",
        "Cloud",
        "local",
        "-cloud",
        ":",
        "/",
        "://",
        "latest",
        "library",
        ".",
        "-",
        "_",
    ),
    *("registry.ollama.ai", "\u017f", "\u212a", "\u0130", "\u200b", "@", "x" * 75, "%3A"),
)
KEYS = (
    *("model", "Model", "MODEL", "name", "Name", "source", "\u017fource", "destination", "from", "From"),
    *("remote_host", "options", "option\u017f", "parameters", "keep_alive", "\u212aeep_alive", "tools"),
    *("Tools", "max_tokens", "max_to\u212aens", "max_output_tokens", "insecure", "in\u017fecure"),
    "_debug_render_only",
)
pieces = st.lists(st.sampled_from(NAME_PIECES), max_size=2).map("".join)
names = st.builds(
    "{}{}{}{}{}".format,
    pieces,
    st.sampled_from(["", "", *bodies.PREFIXES]),
    st.sampled_from([*bodies.PLAIN, *bodies.CLOUD, ""]),
    st.sampled_from(["", "", *bodies.SUFFIXES]),
    pieces,
)
keys = st.sampled_from(KEYS)
option_maps = st.dictionaries(
    st.sampled_from([*bodies.OPTIONS, "NUM_CTX", "temperature"]),
    st.one_of(
        st.integers(), st.floats(), st.none(), st.booleans(), st.just("1"), st.sampled_from([256, 4096])
    ),
)
tool_lists = st.recursive(
    st.lists(st.fixed_dictionaries({"type": st.sampled_from(bodies.TOOL_TYPES)}), max_size=2),
    lambda inner: st.lists(
        st.fixed_dictionaries({"type": st.sampled_from(bodies.TOOL_TYPES), "tools": inner})
    ),
    max_leaves=4,
)
values = st.one_of(
    names, names, option_maps, tool_lists, st.none(), st.booleans(), st.integers(), st.floats()
)
members = st.lists(st.tuples(keys, values), min_size=1, max_size=5)


def written(pairs: list[tuple[str, Any]], escape: bool) -> bytes:
    text = ",".join(f"{json.dumps(k)}:{json.dumps(v, ensure_ascii=escape)}" for k, v in pairs)
    return ("{" + text + "}").encode("utf-8", "surrogatepass")


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from([route for route in ROUTES if route not in (FORM, PATH)]), members, st.booleans())
def test_nothing_that_any_object_says_goes_through_ungranted(
    ollama_reader: OllamaReader, route: str, pairs: list[tuple[str, Any]], escape: bool
) -> None:
    sent = Sent(route, written(pairs, escape))
    (effect,) = ollama_reader.ask([sent])
    assert not holes(Looked(sent), effect)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(["POST /api/show", "POST /api/pull", "POST /v1/chat/completions", "DELETE /api/delete"]),
    names,
)
def test_a_name_means_the_model_that_ollama_takes_it_for(
    ollama_reader: OllamaReader, route: str, name: str
) -> None:
    (effect,) = ollama_reader.ask([Sent(route, json.dumps({"model": name}).encode())])
    read = read_name(name, Reading.REFERENCE)
    if not effect.refused:
        assert read.cloud == effect.cloud
        assert read.canonical in (*effect.models, "")
        assert read.canonical or len(name) > 70  # a stub whose name would be too long
    elif not read.cloud:
        assert read.canonical == ""


@settings(max_examples=500, deadline=None)
@given(names)
def test_a_name_that_is_taken_as_it_stands_is_no_other(ollama_reader: OllamaReader, name: str) -> None:
    body = json.dumps({"source": name, "destination": name}).encode()
    (effect,) = ollama_reader.ask([Sent("POST /api/copy", body)])
    assert (read_name(name, Reading.AS_WRITTEN).canonical,) * 2 == (effect.models or ("", ""))


# Ordinary bodies


def test_an_ordinary_body_is_let_through_where_all_that_it_asks_for_is_granted(
    ollama_reader: OllamaReader,
) -> None:
    random = Random(SEED)
    sent = [
        Sent(route, ordinary(random, route).body(", ", ": "))
        for route in ROUTES
        if route not in (FORM, PATH)
        for _ in range(200)
    ]
    refused = Counter[str]()
    for one, effect in zip(sent, ollama_reader.ask(sent), strict=True):
        looked = Looked(one)
        assert not looked.unreadable, one
        assert not effect.refused, (one, effect)
        assert not holes(looked, effect), (one, effect)
        for who in CALLERS:
            code = refusal(who, looked)
            refused[who.kind] += bool(code)
            if code and not not_granted(who, one.route, effect):
                # Stricter than need be, knowingly: a name that ends like a cloud model's, where it could
                # only be made; an option that this route does not read.
                assert code in ("cloud_denied", "option_denied"), (who.kind, one, effect)
                assert b"cloud" in one.body or b'"options"' in one.body or b'"parameters"' in one.body
    assert refused["everything"] == 0
    assert refused["no model"] == len(sent)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_what_real_clients_send_can_be_read(ollama_reader: OllamaReader, client: Client) -> None:
    for what, sent in client():
        looked = Looked(sent)
        assert not looked.unreadable, what
        (effect,) = ollama_reader.ask([sent])
        assert not effect.refused, (what, effect)
        assert looked.facts is not None
        assert {name.canonical for name in looked.facts.names} == set(effect.models), what
        for who in CALLERS:
            code = refusal(who, looked)
            assert code != "unreadable_body"
            if who.identity.limits == NO_LIMITS and sent.route != FORM:
                assert bool(code) == bool(not_granted(who, sent.route, effect)), (
                    what,
                    who.kind,
                    code,
                    effect,
                )


def test_the_clients_use_every_route_that_has_a_body() -> None:
    assert {sent.route for client in CLIENTS for _, sent in client()} == set(ROUTES) - {PATH}
