"""The table of routes against what Ollama serves, and the one spelling that each path has."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from proxy.errors import Dialect
from proxy.policy.routes import (
    OTHER,
    ROUTES,
    Route,
    Scope,
    allowed_methods,
    dialect_of,
    is_canonical,
    match,
)

DIGEST = "0123456789abcdef" * 4

# Ollama's server/routes.go: what is served, and what of it asks for which scope.
# methods | path | scope | where the model stands | dialect | stream
OLLAMA = """
GET,HEAD    | /                                       | read      | -           | native    | -
GET,HEAD    | /api/version                            | read      | -           | native    | -
GET         | /api/status                             | read      | -           | native    | -
GET,HEAD    | /api/tags                               | read      | -           | native    | -
GET         | /api/ps                                 | read      | -           | native    | -
POST        | /api/show                               | read      | model,name  | native    | -
POST        | /api/generate                           | inference | model       | native    | ndjson
POST        | /api/chat                               | inference | model       | native    | ndjson
POST        | /api/embed                              | inference | model       | native    | -
POST        | /api/embeddings                         | inference | model       | native    | -
POST        | /api/pull                               | manage    | model,name  | native    | ndjson
POST        | /api/push                               | push      | model,name  | native    | ndjson
POST        | /api/create                             | manage    | create      | native    | ndjson
POST        | /api/copy                               | manage    | copy        | native    | -
DELETE      | /api/delete                             | manage    | model,name  | native    | -
POST,HEAD   | /api/blobs/{digest}                     | manage    | -           | native    | -
POST        | /api/me                                 | account   | -           | native    | -
POST        | /api/signout                            | account   | -           | native    | -
DELETE      | /api/user/keys/{key}                    | account   | -           | native    | -
POST        | /api/experimental/web_search            | account   | -           | native    | -
POST        | /api/experimental/web_fetch             | account   | -           | native    | -
GET         | /api/experimental/model-recommendations | read      | -           | native    | -
POST        | /v1/chat/completions                    | inference | model       | openai    | sse
POST        | /v1/completions                         | inference | model       | openai    | sse
POST        | /v1/responses                           | inference | model       | openai    | sse
POST        | /v1/messages                            | inference | model       | anthropic | sse
POST        | /v1/embeddings                          | inference | model       | openai    | -
POST        | /v1/audio/transcriptions                | inference | form        | openai    | -
GET         | /v1/models                              | read      | -           | openai    | -
GET         | /v1/models/{model}                      | read      | path        | openai    | -
"""
PLACES = {
    "-": "none",
    "model": "body: model",
    "model,name": "body: model, else name",
    "create": "body: model, else name; from, files, adapters",
    "copy": "body: source and destination",
    "form": "form: model",
    "path": "path",
}
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in OLLAMA.strip().splitlines()]
ALLOWED = {path: tuple(methods.split(",")) for methods, path, *_ in ROWS}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"]

paths = st.sampled_from(sorted(ALLOWED))


def an_example(path: str) -> bytes:
    """A path that the row with this label serves."""
    filled = path.format(digest=f"sha256:{DIGEST}", key="AAAAC3NzaC1lZDI1NTE5", model="llama3.2:latest")
    return filled.encode()


canonical = paths.map(an_example)


def cells(route: Route) -> tuple[str, str, str, str]:
    return route.scope.value, route.model.value, route.dialect.value, route.stream.value


def test_the_table_holds_every_route_of_ollama_and_no_other() -> None:
    expected = {
        (method, path): (scope, PLACES[place], dialect, "none" if stream == "-" else stream)
        for methods, path, scope, place, dialect, stream in ROWS
        for method in methods.split(",")
    }
    assert {(route.method, route.path): cells(route) for route in ROUTES} == expected


def test_no_route_is_there_twice() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_no_row_is_taken_for_the_label_of_unknown_paths() -> None:
    assert OTHER not in {route.path for route in ROUTES}


def test_the_scopes_are_those_that_operators_write() -> None:
    assert {scope.value for scope in Scope} == {
        "read", "inference", "manage", "push", "account", "admin",
    }  # fmt: skip


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_found_by_method_and_path(route: Route) -> None:
    assert match(route.method, an_example(route.path)) is route


@pytest.mark.parametrize("path", sorted(ALLOWED))
def test_every_other_method_finds_nothing_and_allow_names_those_that_do(path: str) -> None:
    raw_path = an_example(path)
    assert {method for method in METHODS if match(method, raw_path)} == set(ALLOWED[path])
    assert allowed_methods(raw_path) == ALLOWED[path]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_only_what_does_no_harm_twice_is_repeatable(route: Route) -> None:
    assert route.repeatable is (route.scope.value in {"read", "inference"})


@pytest.mark.parametrize(
    "path",
    [
        "/api", "/v1", "/API/tags", "/api/tags;", "/api/tags:80", "/api/tagss", "/api/tags/x", "/v1/chat",
        "/metrics", "/v1/messages/count_tokens", "/v1/models/a/b", "/api/user/keys", "/api/user/keys/a/b",
        "/api/blobs", "/healthz",
    ],
)  # fmt: skip
def test_a_path_that_ollama_does_not_route_is_canonical_and_unknown(path: str) -> None:
    raw_path = path.encode()
    assert is_canonical(raw_path)
    assert allowed_methods(raw_path) == ()
    assert not any(match(method, raw_path) for method in METHODS)


# One spelling


def has_one_spelling(raw_path: bytes) -> bool:
    """RFC 3986 sections 3.3 and 6.2.2 in other words: segments of plain pchar, none empty or of dots."""
    if raw_path == b"/":
        return True
    begin, *segments = raw_path.split(b"/")
    if len(segments) == 3 and segments[:2] == [b"v1", b"models"]:
        segments[2] = segments[2].replace(b"%3A", b":")
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@"
    return (
        begin == b""
        and bool(segments)
        and all(
            segment not in (b"", b".", b"..") and all(octet in plain for octet in segment)
            for segment in segments
        )
    )


# Segments and octets of which the paths that matter are made, and then anything at all.
PIECES = [
    *(
        b"/",
        b"/",
        b"api",
        b"tags",
        b"v1",
        b"models",
        b"blobs",
        b"llama3.2",
        b"{model}",
        b"{digest}",
        b"sha256:",
    ),
    *(b":", b".", b"..", b"%3A", b"%3a", b"%2F", b"%2e", b"?", b"#", b" ", b"\\", b"\n", b"\0", b"\xe4"),
    DIGEST.encode(),
]
near_paths = st.lists(st.sampled_from(PIECES), max_size=10).map(b"".join)
any_paths = st.one_of(near_paths, near_paths.map(lambda path: b"/v1/models/" + path), st.binary(max_size=40))


@given(any_paths)
@example(b"")
@example(b"/")
@example(b"/..\n")
@example(b"/v1/models/a%3Ab/..")
@example(b"/v1/models/a/b%3Ac")
def test_a_path_is_canonical_exactly_if_it_has_one_spelling(raw_path: bytes) -> None:
    assert is_canonical(raw_path) is has_one_spelling(raw_path)


@given(st.sampled_from(METHODS), any_paths)
@example("HEAD", b"/api/blobs/{digest}")
@example("GET", b"/v1/models/{model}")
@example("GET", b"/v1/models/..")
@example("GET", b"/v1/models/a\n")
@example("GET", b"")
def test_only_a_canonical_path_finds_a_row(method: str, raw_path: bytes) -> None:
    route = match(method, raw_path)
    if route is not None:
        assert is_canonical(raw_path)
        assert route.method == method
        assert allowed_methods(raw_path) == ALLOWED[route.path]
        assert re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route.path)), raw_path.decode("ascii"))


@given(canonical, st.data())
def test_an_escape_anywhere_is_another_spelling(raw_path: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(raw_path)))
    escape = data.draw(st.integers(0, 255).map(lambda octet: b"%%%02X" % octet))
    assume(not (raw_path.startswith(b"/v1/models/") and at >= len(b"/v1/models/") and escape == b"%3A"))
    assert not is_canonical(raw_path[:at] + escape + raw_path[at:])
    assert not is_canonical(raw_path[:at] + escape.lower() + raw_path[at + 1 :])


@given(canonical, st.sampled_from([b"/", b"/.", b"/.."]), st.data())
def test_an_empty_or_dot_segment_anywhere_is_another_spelling(
    raw_path: bytes, segment: bytes, data: st.DataObject
) -> None:
    slashes = [at for at, octet in enumerate(raw_path) if octet == ord("/")]
    at = data.draw(st.sampled_from([*slashes, len(raw_path)]))
    assume(raw_path != b"/" or segment == b"/")
    assert not is_canonical(raw_path[:at] + segment + raw_path[at:])


@given(canonical, st.binary(min_size=1, max_size=1), st.data())
def test_an_octet_that_no_path_holds_is_refused_anywhere(
    raw_path: bytes, octet: bytes, data: st.DataObject
) -> None:
    assume(not re.fullmatch(rb"[A-Za-z0-9._~!$&'()*+,;=:@/-]", octet))
    at = data.draw(st.integers(0, len(raw_path)))
    assert not is_canonical(raw_path[:at] + octet + raw_path[at:])


# Values in a path


@pytest.mark.parametrize("separator", [":", "-"])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_a_blob_is_named_by_its_sha256(method: str, separator: str) -> None:
    found = match(method, f"/api/blobs/sha256{separator}{DIGEST}".encode())
    assert found is not None
    assert (found.method, found.path) == (method, "/api/blobs/{digest}")


@pytest.mark.parametrize(
    "digest",
    [
        DIGEST, f"sha256{DIGEST}", f"sha256_{DIGEST}", f"sha256::{DIGEST}", f"sha256:-{DIGEST}",
        f"SHA256:{DIGEST}", f"sha256:{DIGEST.upper()}", f"sha256:{DIGEST[1:]}", f"sha256:{DIGEST}0",
        f"sha256:{DIGEST[1:]}g", "sha256:", f"sha512:{DIGEST}{DIGEST}", f"sha1:{DIGEST[:40]}",
        f"md5:{DIGEST[:32]}", f"xsha256:{DIGEST}", "..", "", f"sha256:{DIGEST}/x", f"sha256:{DIGEST}\n",
        f"sha256%3A{DIGEST}", f"sha256:{DIGEST[2:]}..", f"a/sha256:{DIGEST}",
    ],
)  # fmt: skip
def test_anything_but_a_sha256_is_no_blob(digest: str) -> None:
    raw_path = f"/api/blobs/{digest}".encode()
    assert match("POST", raw_path) is None
    assert match("HEAD", raw_path) is None
    assert allowed_methods(raw_path) == ()


@pytest.mark.parametrize(
    "model",
    ["llama3.2", "llama3.2:latest", "llama3.2%3Alatest", "...", "a..b", "gpt-oss:20b-cloud", "%3A", "A_b~c"],
)
def test_a_model_is_named_by_one_segment_with_its_colon_plain_or_escaped(model: str) -> None:
    found = match("GET", f"/v1/models/{model}".encode())
    assert found is not None
    assert found.path == "/v1/models/{model}"


@pytest.mark.parametrize(
    "model", ["", ".", "..", "a/b", "a%2Fb", "a%3ab", "%2e%2e", "a%", "a%25", "a b", "ä"]
)
def test_a_segment_that_can_be_read_in_two_ways_names_no_model(model: str) -> None:
    assert match("GET", f"/v1/models/{model}".encode()) is None


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "a%2Fb", "a%3Ab", "a b", "a\n"])
def test_a_users_key_is_one_plain_segment(key: str) -> None:
    assert match("DELETE", b"/api/user/keys/AAAA_-=") is not None
    assert match("DELETE", f"/api/user/keys/{key}".encode()) is None


# Dialects


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_wrong_method_is_told_in_the_dialect_of_the_path(route: Route) -> None:
    assert dialect_of(an_example(route.path)) is route.dialect


@pytest.mark.parametrize(
    ("raw_path", "dialect"),
    [
        (b"/v1/messages/count_tokens", Dialect.OPENAI),
        (b"/v1/unknown", Dialect.OPENAI),
        (b"/v1/models/a/b", Dialect.OPENAI),
        (b"/v1/models/../x", Dialect.OPENAI),
        (b"/v1/\xe4", Dialect.OPENAI),
        (b"/v1", Dialect.NATIVE),
        (b"/v10/x", Dialect.NATIVE),
        (b"/V1/models", Dialect.NATIVE),
        (b"/api/unknown", Dialect.NATIVE),
        (b"//v1/models", Dialect.NATIVE),
        (b"/api/\xff", Dialect.NATIVE),
        (b"", Dialect.NATIVE),
    ],
)
def test_an_unknown_path_speaks_openai_under_v1_and_natively_elsewhere(
    raw_path: bytes, dialect: Dialect
) -> None:
    assert dialect_of(raw_path) is dialect


@given(any_paths)
def test_every_path_has_a_dialect(raw_path: bytes) -> None:
    under_v1 = raw_path.startswith(b"/v1/")
    assert (dialect_of(raw_path) is Dialect.NATIVE) is not under_v1
