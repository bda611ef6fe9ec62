"""Every path has one spelling; the others are refused before anybody looks them up."""

from __future__ import annotations

import pytest

from .conftest import Connect
from .messages import check_refusal, dialect_of, request
from .site import QUERY, Keys
from .upstream import Upstream

DIGEST = "sha256:" + "0123456789abcdef" * 4

NOT_CANONICAL = [
    "//api/tags",
    "/api//tags",
    "/api/tags/",
    "/api/tags//",
    "/./api/tags",
    "/api/./tags",
    "/api/tags/.",
    "/api/../api/tags",
    "/api/generate/../tags",
    "/../api/tags",
    "/api/tags/..",
    "/..",
    "//",
    "/.",
    "/api/t%61gs",
    "/api/%74ags",
    "/%61pi/tags",
    "/api%2Ftags",
    "/api%2ftags",
    "/api%5Ctags",
    "/api/%2e/tags",
    "/api/%2e%2e/api/tags",
    "/api/%2E%2E/api/tags",
    "/api/.%2e/api/tags",
    "/api/%252e%252e/api/tags",
    "/api/tags%00",
    "/api/tags%20",
    "/api/tags%0d%0aX-A:%201",
    "/api/tags%3Fx",
    "/api/tags%23",
    "/api/tags%",
    "/api/tags%zz",
    "/api/tags%u0041",
    "/api\\tags",
    "\\api\\tags",
    "/api/tags\\..\\generate",
    "/api/tags|x",
    "/api/tags<x>",
    '/api/tags"',
    "/api/{tags}",
    "/api/[tags]",
    "/api/tags^",
    "/api/tags#x",
    "/api/tags#",
    "/api/tags?a#b",
    "/api/tags`",
    "/v1/models/",
    "/v1/models/..",
    "/v1/models/../../api/delete",
    "/v1/models/a/../../../api/delete",
    "/v1/models/a%2Fb",
    "/v1/models/a%2fb",
    "/v1/models/a%2e%2e",
    "/v1/models/a%3alatest",
    "/v1/models/a%253Alatest",
    "/api/blobs/sha256%3A" + "0" * 64,
    "/api/blobs/../tags",
    "/api/blobs/sha256:..%2f..%2fetc",
]

RAW_BYTES = {
    "latin_1": b"/api/t\xe4gs",
    "utf_8": "/api/tägs".encode(),
    "overlong_utf_8": b"/api/\xc0\xaf",
    "fullwidth_solidus": "/api\uff0ftags".encode(),
    "high_byte": b"/api/tags\xff",
    "delete": b"/api/tags\x7f",
    "escape": b"/api/tags\x1b",
}

UNKNOWN = [
    "/api",
    "/API/tags",
    "/Api/Tags",
    "/api/Tags",
    "/api/tagss",
    "/api/tag",
    "/api/tags;x=1",
    "/api/tags;",
    "/api/tags:80",
    "/api/tags/x",
    "/api/tags=",
    "/api/tags.json",
    "/...",
    "/.env",
    "/metrics",
    "/healthz",
    "/readyz",
    "/admin/keys",
    "/docs",
    "/openapi.json",
    "/favicon.ico",
    "/robots.txt",
    "/debug/pprof",
    "/v1",
    "/v1/messages/count_tokens",
    "/v1/chat",
    "/v1/models/a/b",
    "/V1/models",
    "/api/blobs/sha256:0",
    "/api/blobs/" + DIGEST.upper(),
    "/api/blobs/" + DIGEST + "0",
    "/api/blobs/md5:" + "0" * 32,
    "/api/blobs/" + DIGEST + "/x",
]

SERVED = [
    "/api/tags",
    "/api/tags?x=1",
    "/api/tags??",
    "/api/tags?a=/../b",
    "/api/tags?a=%2e%2e%2f%00",
    "/api/tags?a=http://example.org/",
    f"/api/tags?{QUERY}=1&{QUERY}=2",
    "/v1/models/llama3.2",
    "/v1/models/llama3.2:latest",
    "/v1/models/llama3.2%3Alatest",
    "/v1/models/...",
]


@pytest.mark.parametrize("target", NOT_CANONICAL)
def test_a_path_that_is_not_canonical_is_answered_400(
    target: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client = connect()
    dialect = dialect_of(target.partition("?")[0])
    check_refusal(client.request(request("GET", target, keys.every)), 400, "malformed_request", dialect)
    assert upstream.reached() == b""


@pytest.mark.parametrize("target", RAW_BYTES.values(), ids=RAW_BYTES)
def test_a_path_outside_of_ascii_is_answered_400(
    target: bytes, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    check_refusal(connect().request(request("GET", target, keys.every)), 400, "malformed_request")
    assert upstream.reached() == b""


def test_a_path_that_is_not_canonical_is_told_without_a_credential(
    connect: Connect, upstream: Upstream
) -> None:
    check_refusal(connect().request(request("GET", "/api/../api/tags")), 400, "malformed_request")
    assert upstream.reached() == b""


@pytest.mark.parametrize("target", UNKNOWN)
def test_an_unknown_path_is_told_only_to_those_who_are_known(
    target: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client, dialect = connect(), dialect_of(target)
    check_refusal(client.request(request("GET", target)), 401, "missing_credentials", dialect)
    check_refusal(client.request(request("GET", target, keys.unknown)), 401, "invalid_credentials", dialect)
    check_refusal(client.request(request("GET", target, keys.default)), 404, "unknown_route", dialect)
    check_refusal(client.request(request("GET", target, keys.every)), 404, "unknown_route", dialect)
    assert upstream.reached() == b""


METHODS = ["PUT", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "M-SEARCH", "DELETE", "POST"]


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_method_is_answered_405_with_allow(
    method: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client = connect()
    check_refusal(client.request(request(method, "/api/tags", body=b"")), 401, "missing_credentials")
    answer = client.request(request(method, "/api/tags", keys.every, body=b""))
    check_refusal(answer, 405, "method_not_allowed")
    assert sorted((answer.header("allow") or "").split(", ")) == ["GET", "HEAD"]
    assert upstream.reached() == b""


@pytest.mark.parametrize("target", ["/v1/models", "/v1/models/x", "/v1/chat/completions", "/v1/messages"])
def test_a_wrong_method_is_told_in_the_dialect_of_the_path(
    target: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    answer = connect().request(request("PUT", target, keys.every, body=b""))
    check_refusal(answer, 405, "method_not_allowed", dialect_of(target))
    assert upstream.reached() == b""


@pytest.mark.parametrize("target", SERVED)
def test_a_canonical_path_goes_on_as_it_came_query_string_too(
    target: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    assert connect().request(request("GET", target, keys.every)).status == 200
    assert [exchange.target for exchange in upstream.requests] == [target]


@pytest.mark.parametrize(
    "override", ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Forwarded-Uri"]
)
def test_no_header_changes_what_is_asked_for(
    override: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    value = "DELETE" if "Method" in override else "/api/delete"
    assert connect().request(request("GET", "/api/tags", keys.read, f"{override}: {value}")).status == 200
    assert [(exchange.method, exchange.target) for exchange in upstream.requests] == [("GET", "/api/tags")]
