"""Every route, with every credential in every place: the table of what a grant opens and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from .client import Response
from .conftest import StartSite
from .messages import check_refusal, dialect_of, request
from .site import Site, basic

DIGEST = "sha256:" + "0123456789abcdef" * 4

# Ollama's routes (server/routes.go) and the scope that each needs.
ROUTES = [
    ("GET", "/api/version", "read"),
    ("HEAD", "/api/version", "read"),
    ("GET", "/api/status", "read"),
    ("GET", "/api/tags", "read"),
    ("HEAD", "/api/tags", "read"),
    ("GET", "/api/ps", "read"),
    ("POST", "/api/show", "read"),
    ("POST", "/api/generate", "inference"),
    ("POST", "/api/chat", "inference"),
    ("POST", "/api/embed", "inference"),
    ("POST", "/api/embeddings", "inference"),
    ("POST", "/api/pull", "manage"),
    ("POST", "/api/push", "push"),
    ("POST", "/api/create", "manage"),
    ("POST", "/api/copy", "manage"),
    ("DELETE", "/api/delete", "manage"),
    ("POST", f"/api/blobs/{DIGEST}", "manage"),
    ("HEAD", f"/api/blobs/{DIGEST}", "manage"),
    ("POST", f"/api/blobs/{DIGEST.replace(':', '-')}", "manage"),
    ("POST", "/api/me", "account"),
    ("POST", "/api/signout", "account"),
    ("DELETE", "/api/user/keys/c3NoLWVkMjU1MTk", "account"),
    ("POST", "/api/experimental/web_search", "account"),
    ("POST", "/api/experimental/web_fetch", "account"),
    ("GET", "/api/experimental/model-recommendations", "read"),
    ("POST", "/v1/chat/completions", "inference"),
    ("POST", "/v1/completions", "inference"),
    ("POST", "/v1/responses", "inference"),
    ("POST", "/v1/messages", "inference"),
    ("POST", "/v1/embeddings", "inference"),
    ("POST", "/v1/audio/transcriptions", "inference"),
    ("GET", "/v1/models", "read"),
    ("GET", "/v1/models/llama3.2:latest", "read"),
]

PLACES: dict[str, Callable[[str], str]] = {
    "bearer": lambda key: f"Authorization: Bearer {key}",
    "x_api_key": lambda key: f"X-Api-Key: {key}",
    "basic": lambda key: f"Authorization: Basic {basic('ollama', key)}",
}

SCOPES = ["read", "inference", "manage", "push", "account"]


@pytest.fixture(scope="module")
def closed_site(start_site: StartSite) -> Site:
    """A proxy that serves nothing without a key."""
    return start_site(auth={"anonymous": []})


def check_route(method: str, path: str, scope: str, place: str, site: Site) -> None:
    """A route opens to a key of its scope and to the default key where that has it, and to nobody else."""
    keys, upstream = site.keys, site.upstream
    dialect = dialect_of(path)
    body = b'{"model":"llama3.2"}' if method in ("POST", "DELETE") else None

    def ask(*lines: str) -> Response:
        with contextlib.closing(site.connect()) as client:
            return client.request(request(method, path, None, *lines, body=body), method)

    at = PLACES[place]
    check_refusal(ask(), 401, "missing_credentials", dialect, method)
    for key in (keys.unknown, keys.revoked):
        check_refusal(ask(at(key)), 401, "invalid_credentials", dialect, method)
    check_refusal(ask(at(keys.expired)), 401, "expired_credentials", dialect, method)
    for other in SCOPES:
        if other != scope:
            answer = ask(at(getattr(keys, other)))
            check_refusal(answer, 403, "scope_denied", dialect, method)
            if method != "HEAD":
                assert scope in answer.body.decode(), "the refusal names the missing scope"
    assert upstream.reached() == b""
    assert ask(at(getattr(keys, scope))).status == 200
    default = ask(at(keys.default))
    assert default.status == (200 if scope in ("read", "inference") else 403)
    served = [(exchange.method, exchange.target) for exchange in upstream.requests]
    assert served == [(method, path)] * (2 if scope in ("read", "inference") else 1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("method", "path", "scope"), ROUTES, ids=[f"{m} {p[:40]}" for m, p, _ in ROUTES])
def test_a_route_opens_to_the_right_key_alone(
    method: str, path: str, scope: str, place: str, site: Site
) -> None:
    check_route(method, path, scope, place, site)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_opens_to_the_right_key_alone_where_nothing_is_anonymous(
    method: str, place: str, closed_site: Site
) -> None:
    closed_site.upstream.forget()
    check_route(method, "/", "read", place, closed_site)
