"""Who may use which route: denied unless granted, for every route and every set of scopes."""

from __future__ import annotations

from itertools import combinations

import pytest

from proxy.errors import ProxyError
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.policy.access import Policy, authorise_route, no_route
from proxy.policy.routes import ROUTES, Route, Scope, match

OPEN = Policy(cloud=True)
NAMES = [scope.value for scope in Scope]
SCOPE_SETS = [frozenset(chosen) for size in range(len(NAMES) + 1) for chosen in combinations(NAMES, size)]


def caller(scopes: frozenset[str]) -> Identity:
    return Identity("api_key", "0123456789", "laptop", scopes)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_opens_to_its_own_scope_and_to_no_set_of_others(route: Route) -> None:
    for scopes in SCOPE_SETS:
        if route.scope.value in scopes:
            authorise_route(caller(scopes), route, OPEN)
        else:
            with pytest.raises(ProxyError) as refused:
                authorise_route(caller(scopes), route, OPEN)
            assert (refused.value.code, refused.value.status) == ("scope_denied", 403)
            assert f"'{route.scope.value}'" in refused.value.message
            assert not [
                name for name in NAMES if name != route.scope.value and f"'{name}'" in str(refused.value)
            ]


@pytest.mark.parametrize(
    "scope", ["READ", "Read", " read", "read ", "rea", "*", "", "read,inference", "admin"]
)
def test_a_scope_counts_only_by_its_exact_name(scope: str) -> None:
    route = match("GET", b"/api/tags")
    assert route is not None
    with pytest.raises(ProxyError, match="'read'"):
        authorise_route(caller(frozenset({scope})), route, OPEN)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_whoever_the_operator_let_in_without_a_key_is_asked_for_no_scope(route: Route) -> None:
    authorise_route(ANONYMOUS, route, OPEN)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_calling_oneself_anonymous_opens_nothing(route: Route) -> None:
    with pytest.raises(ProxyError, match="lacks the scope"):
        authorise_route(Identity("anonymous", None, None, frozenset()), route, OPEN)


@pytest.mark.parametrize("path", [b"/metrics", b"/api", b"/v1/messages/count_tokens", b"/api/blobs/sha256:0"])
def test_an_unknown_path_is_404(path: bytes) -> None:
    refused = no_route(path)
    assert (refused.code, refused.status) == ("unknown_route", 404)
    assert refused.headers == ()


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (b"/", b"GET, HEAD"),
        (b"/api/tags", b"GET, HEAD"),
        (b"/api/chat", b"POST"),
        (b"/api/delete", b"DELETE"),
        (b"/v1/models/llama3.2%3Alatest", b"GET"),
        (b"/api/blobs/sha256-" + b"0" * 64, b"POST, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(path: bytes, allow: bytes) -> None:
    refused = no_route(path)
    assert (refused.code, refused.status) == ("method_not_allowed", 405)
    assert refused.headers == ((b"Allow", allow),)
    assert allow.decode() in refused.message
