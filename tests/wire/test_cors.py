"""CORS on the wire: preflights without credentials, and fields on every answer, or nothing of it at all."""

from __future__ import annotations

import pytest

from .client import Client, Response
from .conftest import Connect, StartSite
from .exchange import Exchange
from .messages import check_refusal, chunked, request
from .site import Keys, Site
from .upstream import message, respond

PAGE = "https://chat.example.com"
OTHER_PAGE = "http://localhost:3000"
STRANGER = "https://evil.example"
FROM_PAGE = f"Origin: {PAGE}"
ASKS = "Access-Control-Request-Method: POST"
ASKS_FOR = "Access-Control-Request-Headers: authorization,content-type,x-evil,x-stainless-os"

JSON = ("Content-Type", "application/json")
STREAM = message(
    "200 OK", [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")], length=False
)
STREAM += chunked(b'{"done":false}\n', b'{"done":true}\n')


@pytest.fixture(scope="module")
def listed(start_site: StartSite) -> Site:
    return start_site(
        cors={"allow_origins": [PAGE, OTHER_PAGE]},
        auth={"path_keys": True},
        listen={"max_header_bytes": "4KiB"},
        policy={"max_guarded_body": "64KiB"},
    )


@pytest.fixture(scope="module")
def open_to_all(start_site: StartSite) -> Site:
    return start_site(cors={"allow_origins": ["*"]}, tls={"mode": "off"})


def ask(site: Site, data: bytes, method: str = "GET") -> Response:
    client = site.connect()
    try:
        answer = client.request(data, method)
    finally:
        client.close()
    assert answer.torn is None
    return answer


def cors_fields(answer: Response) -> dict[str, str]:
    """Each of them, which may stand but once."""
    found = [(name.lower(), value) for name, value in answer.headers if name.lower().startswith("access-")]
    assert len(dict(found)) == len(found)
    assert "access-control-allow-credentials" not in dict(found)
    return dict(found)


def check_allowed(answer: Response, origin: str = PAGE) -> None:
    found = cors_fields(answer)
    assert found.keys() == {"access-control-allow-origin", "access-control-expose-headers"}
    assert found["access-control-allow-origin"] == origin
    assert "X-Request-Id" in found["access-control-expose-headers"]
    assert answer.all("vary").count("Origin") == (origin != "*")
    assert answer.header("x-request-id")


# Preflights


@pytest.mark.parametrize(
    "path",
    [
        "/api/chat",
        "/v1/messages",
        "/api/tags",
        "/",
        "/nothing",
        "//api/chat",
        "/api/../x",
        "/%2e/",
        "/~key/x",
        "/?x",
    ],
)
@pytest.mark.parametrize("credential", [None, "Authorization: Bearer nonsense", "X-Api-Key: oap_x"])
def test_a_preflight_is_answered_without_credentials_and_alike_for_every_path(
    path: str, credential: str | None, listed: Site
) -> None:
    listed.upstream.forget()
    lines = [FROM_PAGE, ASKS, ASKS_FOR, *([credential] if credential else [])]
    answer = ask(listed, request("OPTIONS", path, None, *lines))
    assert (answer.status, answer.reason, answer.body) == (204, "No Content", b"")
    names = [name for name, _ in answer.headers if name not in ("Date", "X-Request-Id")]
    assert len(answer.headers) == len(names) + 2
    assert [(name, answer.header(name)) for name in names] == [
        ("Access-Control-Allow-Origin", PAGE),
        ("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE"),
        ("Access-Control-Allow-Headers", "authorization, content-type, x-stainless-os"),
        ("Access-Control-Max-Age", "7200"),
        ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]
    assert listed.upstream.reached() == b""


def test_a_preflight_is_told_of_in_log_and_metrics(listed: Site) -> None:
    labels = {"route": "other", "method": "other", "code": "204"}
    before = listed.metric("ollama_proxy_requests_total", labels)
    denied = listed.metric("ollama_proxy_denied_total", {})
    answer = ask(listed, request("OPTIONS", "/api/chat", None, FROM_PAGE, ASKS))
    line = listed.logged(answer.header("x-request-id") or "")
    assert (line["method"], line["route"], line["status"], line["outcome"]) == ("OPTIONS", "other", 204, "ok")
    assert listed.metric("ollama_proxy_requests_total", labels) == before + 1
    assert listed.metric("ollama_proxy_denied_total", {}) == denied


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ([], b""),
        (["Content-Length: 5"], b"hello"),
        (["Transfer-Encoding: chunked"], chunked(b"hello")),
    ],
    ids=["none", "length", "chunked"],
)
def test_a_connection_goes_on_after_a_preflight_whatever_its_body(
    lines: list[str], body: bytes, listed: Site, keys: Keys
) -> None:
    client = listed.connect()
    first = request("OPTIONS", "/api/version", None, FROM_PAGE, ASKS, *lines) + body
    second = request("GET", "/api/version", keys.default, FROM_PAGE)
    client.send(first + second)
    assert client.response().status == 204
    answer = client.response()
    assert answer.status == 200
    check_allowed(answer)
    client.close()


def test_a_preflight_with_a_long_body_ends_the_connection(listed: Site) -> None:
    client = listed.connect()
    answer = client.request(request("OPTIONS", "/", None, FROM_PAGE, ASKS, "Content-Length: 1000000"))
    assert (answer.status, answer.header("connection")) == (204, "close")
    client.close()


@pytest.mark.parametrize(
    "lines",
    [
        [f"Origin: {STRANGER}", ASKS],
        ["Origin: null", ASKS],
        [f"Origin: {PAGE}.evil.example", ASKS],
        [f"Origin: {PAGE}:443", ASKS],
        [f"Origin: {PAGE.upper()}", ASKS],
        [f"Origin: {PAGE}, {STRANGER}", ASKS],
        [FROM_PAGE, f"Origin: {STRANGER}", ASKS],
        [f"Origin: {STRANGER}", FROM_PAGE, ASKS],
        [FROM_PAGE, FROM_PAGE, ASKS],
        ["Origin:", ASKS],
        [ASKS],
        [f"X-Origin: {PAGE}", f"Referer: {PAGE}/", ASKS],
        [f"Origin: {PAGE}\xa0", ASKS],
    ],
)
def test_what_no_page_on_the_list_asks_is_answered_as_without_cors(
    lines: list[str], listed: Site, keys: Keys
) -> None:
    for key, status, code in ((None, 401, "missing_credentials"), (keys.default, 405, "method_not_allowed")):
        answer = ask(listed, request("OPTIONS", "/api/chat", key, *lines))
        check_refusal(answer, status, code)
        assert cors_fields(answer) == {}
        assert answer.header("vary") == "Origin"


def test_options_that_ask_for_no_method_are_no_preflight(listed: Site, keys: Keys) -> None:
    answer = ask(listed, request("OPTIONS", "/api/chat", None, FROM_PAGE))
    check_refusal(answer, 401, "missing_credentials")
    check_allowed(answer)
    answer = ask(listed, request("OPTIONS", "/api/chat", keys.default, FROM_PAGE))
    check_refusal(answer, 405, "method_not_allowed")
    check_allowed(answer)


@pytest.mark.parametrize(
    "line",
    [f"Origin: {PAGE}\r\n {STRANGER}", f"Origin : {PAGE}", f"Origin: {PAGE}\x00", f"Origin: {PAGE}\rX: y"],
)
def test_an_origin_that_breaks_the_grammar_is_no_request_at_all(line: str, listed: Site) -> None:
    answer = ask(listed, request("OPTIONS", "/api/chat", None, line, ASKS))
    check_refusal(answer, 400, "malformed_request")
    assert STRANGER not in str(answer.headers)


# Errors of ours

REFUSALS = {
    "no_key": (("GET", "/api/tags"), None, 401, "missing_credentials"),
    "bad_key": (("GET", "/v1/models"), "unknown", 401, "invalid_credentials"),
    "scope": (("DELETE", "/api/delete"), "read", 403, "scope_denied"),
    "route": (("GET", "/nothing"), "default", 404, "unknown_route"),
    "method": (("GET", "/api/chat"), "default", 405, "method_not_allowed"),
    "path": (("GET", "//api/chat"), "default", 400, "malformed_request"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_page_may_read_every_refusal(name: str, listed: Site, keys: Keys) -> None:
    what, key, status, code = REFUSALS[name]
    value = None if key is None else getattr(keys, key)
    answer = ask(listed, request(*what, value, FROM_PAGE))
    assert answer.status == status
    assert code.encode() in answer.body
    check_allowed(answer)
    head = ask(listed, request("HEAD", what[1], value, f"Origin: {OTHER_PAGE}"), "HEAD")
    check_allowed(head, OTHER_PAGE)
    stranger = ask(listed, request(*what, value, f"Origin: {STRANGER}"))
    assert (stranger.status, cors_fields(stranger), stranger.header("vary")) == (status, {}, "Origin")


def test_a_page_may_read_what_the_guards_answer(listed: Site) -> None:
    for lines, status in (
        ([FROM_PAGE, "X-Long: " + "a" * 8000], 431),
        ([FROM_PAGE, "Expect: a-wonder"], 417),
        ([FROM_PAGE, "Transfer-Encoding: gzip"], 501),
    ):
        answer = ask(listed, request("POST", "/api/chat", None, *lines))
        assert answer.status == status
        check_allowed(answer)


def test_a_page_may_read_that_ollama_fails(listed: Site, keys: Keys) -> None:
    listed.upstream.answer = lambda exchange: exchange.close()
    answer = ask(listed, request("POST", "/api/chat", keys.default, FROM_PAGE, body=b'{"model":"m"}'))
    listed.upstream.forget()
    assert answer.status == 502
    check_allowed(answer)


# Answers of Ollama


@pytest.mark.parametrize("origin", [PAGE, OTHER_PAGE])
def test_a_page_may_read_a_stream_and_ollama_is_not_told_of_the_page(
    origin: str, listed: Site, keys: Keys
) -> None:
    listed.upstream.forget()
    listed.upstream.answer = respond(STREAM)
    lines = (f"Origin: {origin}", "Content-Type: application/json")
    answer = ask(listed, request("POST", "/api/chat", keys.default, *lines, body=b'{"model":"m"}'))
    assert (answer.status, answer.framing) == (200, "chunked")
    assert answer.body.endswith(b'{"done":true}\n')
    check_allowed(answer, origin)
    (seen,) = listed.upstream.requests
    assert not seen.all("origin")
    listed.upstream.forget()


def test_head_carries_the_same(listed: Site, keys: Keys) -> None:
    answer = ask(listed, request("HEAD", "/api/tags", keys.default, FROM_PAGE), "HEAD")
    assert answer.status == 200
    check_allowed(answer)


def test_what_stands_before_ollama_has_no_say(listed: Site, keys: Keys) -> None:
    fields = [
        JSON,
        ("Access-Control-Allow-Origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("ACCESS-CONTROL-EXPOSE-HEADERS", "*"),
        ("Vary", "Accept-Encoding"),
    ]
    listed.upstream.answer = respond(message("200 OK", fields, b"{}"))
    for origin in (PAGE, STRANGER):
        answer = ask(listed, request("GET", "/api/tags", keys.default, f"Origin: {origin}"))
        assert answer.all("vary") == ["Accept-Encoding", "Origin"]
        if origin == PAGE:
            check_allowed(answer)
        else:
            assert cors_fields(answer) == {}
    listed.upstream.forget()


def test_a_request_without_an_origin_is_served_and_caches_keep_it_apart(listed: Site, keys: Keys) -> None:
    answer = ask(listed, request("GET", "/api/tags", keys.default))
    assert (answer.status, cors_fields(answer), answer.header("vary")) == (200, {}, "Origin")


def test_requests_of_several_pages_on_one_connection_have_each_their_own(listed: Site, keys: Keys) -> None:
    client: Client = listed.connect()
    origins = [PAGE, STRANGER, OTHER_PAGE, PAGE]
    client.send(
        b"".join(request("GET", "/api/version", keys.default, f"Origin: {origin}") for origin in origins)
    )
    said = [cors_fields(client.response()).get("access-control-allow-origin") for _ in origins]
    assert said == [PAGE, None, OTHER_PAGE, PAGE]
    client.close()


# Any page


@pytest.mark.parametrize("origin", [PAGE, "null", "chrome-extension://abcdefgh"])
def test_with_a_star_every_page_may(origin: str, open_to_all: Site, keys: Keys) -> None:
    answer = ask(open_to_all, request("OPTIONS", "/api/chat", None, f"Origin: {origin}", ASKS))
    assert answer.status == 204
    assert cors_fields(answer)["access-control-allow-origin"] == "*"
    for key, status in ((None, 401), (keys.default, 200)):
        answer = ask(open_to_all, request("GET", "/api/tags", key, f"Origin: {origin}"))
        assert answer.status == status
        check_allowed(answer, "*")


# Nobody


def test_without_cors_nothing_is_said_of_it(connect: Connect, site: Site, keys: Keys) -> None:
    def answer_with_cors(exchange: Exchange) -> None:
        fields = [JSON, ("Access-Control-Allow-Origin", "*")]
        respond(message("200 OK", fields, b"{}"))(exchange)

    site.upstream.answer = answer_with_cors
    client = connect()
    for data, status in (
        (request("OPTIONS", "/api/chat", None, FROM_PAGE, ASKS), 401),
        (request("OPTIONS", "/api/chat", keys.default, FROM_PAGE, ASKS), 405),
        (request("GET", "/api/tags", None, FROM_PAGE), 401),
        (request("GET", "/api/tags", keys.default, FROM_PAGE), 200),
    ):
        answer = client.request(data)
        assert answer.status == status
        assert cors_fields(answer) == {}
        assert answer.header("vary") is None
