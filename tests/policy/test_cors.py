"""Which pages may use the proxy, what preflights are answered, and how origins are written."""

from __future__ import annotations

import re
from string import ascii_lowercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.cors import MAX_ASKED, MAX_NAMES, Cors, Fields, allowed_headers, parse_origin, preflight

PAGE = b"https://chat.example.com"
DEV = b"http://localhost:3000"
LISTED = Cors(["https://chat.example.com", "http://localhost:3000"])
EVERY = Cors(["*"])
NONE = Cors([])

NO_ORIGIN_OF_THE_LIST = [
    None,
    b"",
    b"null",
    b"*",
    b"https://chat.example.com.",
    b"https://chat.example.com/",
    b"https://chat.example.com:443",
    b"https://chat.example.com:8443",
    b"http://chat.example.com",
    b"https://Chat.example.com",
    b" https://chat.example.com",
    b"https://chat.example.com ",
    b"https://chat.example.com,https://chat.example.com",
    b"https://chat.example.com, http://localhost:3000",
    b"https://chat.example.com\x00",
    b"https://chat.example.com.evil.example",
    b"https://evilchat.example.com",
    b"https://chat.example.co",
    b"https://chatxexample.com",
    b"https://a.chat.example.com",
    b"http://localhost",
    b"http://localhost:30000",
    b"\xff\xfe",
]


def lines(data: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines apart: raises where one is not whole."""
    assert data == b"" or data.endswith(b"\r\n")
    found = []
    for line in data.split(b"\r\n")[:-1]:
        match = re.fullmatch(rb"([A-Za-z-]+): ([!-~]+(?: [!-~]+)*)", line)
        assert match is not None, line
        found.append((match[1].lower(), match[2]))
    return found


def asking(origin: bytes | None = PAGE, method: bytes | None = b"POST", *more: tuple[bytes, bytes]) -> Fields:
    fields = [(b"host", b"ollama.example:8443")]
    if origin is not None:
        fields.append((b"origin", origin))
    if method is not None:
        fields.append((b"access-control-request-method", method))
    return [*fields, *more]


def answered(cors: Cors, fields: Fields) -> dict[bytes, bytes]:
    """The fields of a preflight's answer, each of which stands once."""
    answer = preflight(cors, "OPTIONS", fields)
    assert answer is not None
    status, _, rest = answer.partition(b"\r\n")
    assert status == b"HTTP/1.1 204 No Content"
    found = lines(rest)
    assert len(dict(found)) == len(found)
    return dict(found)


# What every answer carries


@pytest.mark.parametrize("origin", [PAGE, DEV])
def test_a_page_on_the_list_may_read_the_answer_and_the_fields_that_clients_look_at(origin: bytes) -> None:
    fields = dict(lines(LISTED.fields_for(origin)))
    assert fields.keys() == {b"access-control-allow-origin", b"access-control-expose-headers", b"vary"}
    assert fields[b"access-control-allow-origin"] == origin
    assert fields[b"vary"] == b"Origin"
    exposed = fields[b"access-control-expose-headers"].lower().split(b", ")
    assert {b"x-request-id", b"request-id", b"retry-after", b"ratelimit", b"x-should-retry"} <= set(exposed)


@pytest.mark.parametrize("origin", NO_ORIGIN_OF_THE_LIST)
def test_any_other_page_may_not_and_caches_are_told_to_keep_it_apart(origin: bytes | None) -> None:
    assert LISTED.fields_for(origin) == b"Vary: Origin\r\n"


@pytest.mark.parametrize("origin", [PAGE, b"null", *NO_ORIGIN_OF_THE_LIST])
def test_a_star_is_answered_with_a_star_whatever_came(origin: bytes | None) -> None:
    fields = dict(lines(EVERY.fields_for(origin)))
    assert fields.keys() == {b"access-control-allow-origin", b"access-control-expose-headers"}
    assert fields[b"access-control-allow-origin"] == b"*"


def test_a_star_among_others_is_a_star() -> None:
    assert Cors(["https://chat.example.com", "*"]).fields_for(PAGE) == EVERY.fields_for(None)


@pytest.mark.parametrize("origin", [PAGE, None, b"null"])
def test_nothing_is_said_where_no_origin_is_configured(origin: bytes | None) -> None:
    assert NONE.fields_for(origin) == b""
    assert preflight(NONE, "OPTIONS", asking(origin)) is None


@given(st.sampled_from([LISTED, EVERY, NONE]), st.binary() | st.none())
def test_nothing_of_a_request_gets_into_the_fields_and_no_cookie_is_ever_asked_for(
    cors: Cors, origin: bytes | None
) -> None:
    said = cors.fields_for(origin)
    assert said in {c.fields_for(o) for c in (LISTED, EVERY, NONE) for o in (PAGE, DEV, None)}
    assert b"credentials" not in said.lower()


# Preflights


def test_a_preflight_of_a_page_on_the_list_is_answered_without_any_credential() -> None:
    asked = (b"access-control-request-headers", b"authorization,content-type")
    assert answered(LISTED, asking(PAGE, b"POST", asked)) == {
        b"access-control-allow-origin": PAGE,
        b"access-control-allow-methods": b"GET, HEAD, POST, DELETE",
        b"access-control-allow-headers": b"authorization, content-type",
        b"access-control-max-age": b"7200",
        b"vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }


@pytest.mark.parametrize("origin", [PAGE, b"null", b"chrome-extension://abcdefgh", b"\xff"])
def test_with_a_star_every_page_is_answered_a_star(origin: bytes) -> None:
    assert answered(EVERY, asking(origin))[b"access-control-allow-origin"] == b"*"


@pytest.mark.parametrize("origin", NO_ORIGIN_OF_THE_LIST)
def test_a_preflight_of_another_page_gets_no_answer(origin: bytes | None) -> None:
    assert preflight(LISTED, "OPTIONS", asking(origin)) is None


@pytest.mark.parametrize("cors", [LISTED, EVERY])
@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("POST", asking()),
        ("GET", asking()),
        ("options", asking()),
        ("OPTIONS", asking(None)),
        ("OPTIONS", asking(PAGE, None)),
        ("OPTIONS", [*asking(), (b"origin", PAGE)]),
        ("OPTIONS", [*asking(), (b"origin", b"https://evil.example")]),
        ("OPTIONS", [(b"origin", b"https://evil.example"), *asking()]),
        ("OPTIONS", []),
    ],
)
def test_what_is_no_preflight_is_none(cors: Cors, method: str, fields: Fields) -> None:
    assert preflight(cors, method, fields) is None


@pytest.mark.parametrize("method", [b"PUT", b"GET", b"", b"\xff", b"CONNECT"])
def test_methods_are_the_same_whatever_is_asked_for(method: bytes) -> None:
    assert (
        answered(LISTED, asking(PAGE, method))[b"access-control-allow-methods"] == b"GET, HEAD, POST, DELETE"
    )


def test_a_page_on_the_internet_may_ask_for_a_server_of_the_local_network() -> None:
    asked = (b"access-control-request-private-network", b"true")
    assert answered(LISTED, asking(PAGE, b"POST", asked))[b"access-control-allow-private-network"] == b"true"
    assert b"access-control-allow-private-network" not in answered(LISTED, asking())


# Names as Chromium, Firefox and Safari ask for them, of the versions that tests/clients/programs.py has.
SENT_BY_SDKS = [
    b"authorization,content-type",
    b"accept,authorization,content-type,user-agent",
    b"authorization,content-type,openai-organization,openai-project,x-stainless-arch,x-stainless-lang,"
    b"x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    b"x-stainless-runtime-version,x-stainless-timeout,openai-beta,x-stainless-helper-method",
    b"anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key,"
    b"x-stainless-helper,x-stainless-poll-helper,x-stainless-custom-poll-interval,idempotency-key",
    b"traceparent,tracestate,baggage,x-request-id,x-requested-with,http-referer,x-title",
]


@pytest.mark.parametrize("asked", SENT_BY_SDKS)
def test_every_header_of_the_clients_is_allowed(asked: bytes) -> None:
    assert allowed_headers(asked) == asked.split(b",")


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (b"", []),
        (b" , ,,", []),
        (b"Authorization , X-STAINLESS-OS\t", [b"authorization", b"x-stainless-os"]),
        (b"authorization,authorization,AUTHORIZATION", [b"authorization"]),
        (b"authorization,x-forwarded-for,cookie,host,origin,proxy-authorization", [b"authorization"]),
        (b"x-forwarded-user,x-real-ip,forwarded,x-auth-token", []),
        (b"*", []),
        (b"x-stainless-,openai-", [b"x-stainless-", b"openai-"]),
        (b"x-stainless-a b,x-stainless-a:b,x-stainless-\x00,x-stainless-\xff,x-stainless-\r\nset-cookie", []),
        (b"x-stainless-" + b"a" * 52, [b"x-stainless-" + b"a" * 52]),
        (b"x-stainless-" + b"a" * 53, []),
        (b"authorization," + b"," * MAX_ASKED, []),
    ],
)
def test_of_other_headers_none_is(asked: bytes, allowed: list[bytes]) -> None:
    assert allowed_headers(asked) == allowed


def test_names_are_bounded_in_number() -> None:
    assert len(allowed_headers(b",".join(b"x-stainless-%d" % n for n in range(100)))) == MAX_NAMES


def test_names_in_several_fields_are_one_list() -> None:
    asked = [(b"access-control-request-headers", name) for name in (b"accept", b"x-api-key,x-evil")]
    found = answered(LISTED, asking(PAGE, b"POST", *asked))
    assert found[b"access-control-allow-headers"] == b"accept, x-api-key"


odd_bytes = st.binary(max_size=200) | st.text("\r\n:, x-stainless-anthropic", max_size=200).map(str.encode)


@given(
    st.sampled_from([LISTED, EVERY]),
    st.sampled_from([PAGE, DEV, b"null"]) | odd_bytes,
    odd_bytes,
    odd_bytes,
    odd_bytes,
)
def test_no_answer_to_a_preflight_holds_a_line_of_the_clients(
    cors: Cors, origin: bytes, method: bytes, asked: bytes, private: bytes
) -> None:
    fields = asking(
        origin,
        method,
        (b"access-control-request-headers", asked),
        (b"access-control-request-private-network", private),
    )
    if cors is LISTED and origin not in (PAGE, DEV):
        assert preflight(cors, "OPTIONS", fields) is None
        return
    found = answered(cors, fields)
    assert found.keys() <= {
        b"access-control-allow-origin",
        b"access-control-allow-methods",
        b"access-control-allow-headers",
        b"access-control-allow-private-network",
        b"access-control-max-age",
        b"vary",
    }
    assert found[b"access-control-allow-origin"] == (b"*" if cors is EVERY else origin)
    assert len(found.get(b"access-control-allow-headers", b"")) <= MAX_ASKED + 2 * MAX_NAMES


# Origins in the configuration


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "https://chat.example.com",
        "http://chat.example.com",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
        "https://[2001:db8::1]",
        "https://chat.example.com:80",
        "http://chat.example.com:443",
        "https://xn--bcher-kva.example",
        "http://open_webui:8080",
        "https://chat.example.com.",
        "http://gpu-box.local",
        "http://1host.example",
        "app://obsidian.md",
        "tauri://localhost",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://0f0b2f1e-5a5d-4b5c-9b55-2f4f7f1b2c3d",
    ],
)
def test_an_origin_as_browsers_write_it_is_taken_as_it_is(text: str) -> None:
    assert parse_origin(text) == text
    assert Cors([text]).allows(text.encode())


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("https://chat.example.com/", "goes on after host and port", '"https://chat.example.com"'),
        ("https://chat.example.com/chat?x=1#y", "goes on after host and port", '"https://chat.example.com"'),
        ("https://Chat.Example.com", "has upper case letters", '"https://chat.example.com"'),
        ("HTTPS://chat.example.com", "has upper case letters", '"https://chat.example.com"'),
        ("https://chat.example.com:443", "has a port that browsers leave out", '"https://chat.example.com"'),
        ("http://[::1]:80", "has a port that browsers leave out", '"http://[::1]"'),
        ("http://chat.example.com:", "has a port that browsers leave out", '"http://chat.example.com"'),
        ("http://localhost:03000", "is not how browsers write it", '"http://localhost:3000"'),
        ("http://[0:0::1]:3000", "is not how browsers write it", '"http://[::1]:3000"'),
        ("http://127.0.0.1.", "is not how browsers write it", '"http://127.0.0.1"'),
        ("https://bücher.example", "in Punycode", '"https://xn--bcher-kva.example"'),
        ("https://BÜCHER.example", "in Punycode", '"https://xn--bcher-kva.example"'),
        ("https://straße.example", "in Punycode", '"https://xn--strae-oqa.example"'),
        ("chat.example.com", "has no scheme", '"https://chat.example.com", or the same with http'),
        ("localhost:3000", "has no scheme", '"https://localhost:3000", or the same with http'),
        ("https://*.example.com", "has a wildcard in it", "write out each origin"),
        ("http://localhost:*", "has a wildcard in it", "write out each origin"),
        ("**", "has a wildcard in it", '"*" for any page'),
        ("null", "is said by many pages", "serve the page over HTTP"),
    ],
)
def test_another_spelling_is_told_the_one_of_browsers(text: str, wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)) as caught:
        parse_origin(text)
    said, _, hint = str(caught.value).partition("; ")
    assert said.startswith(f'"{text}" ')
    assert right in hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "https://",
        "file://",
        "https:chat.example.com",
        "https://chat.example.com:0",
        "https://chat.example.com:65536",
        "https://chat.example.com:8443x",
        "https://chat example.com",
        " https://chat.example.com",
        "https://chat.example.com\n",
        "https://chat.example.com, http://localhost",
        "https://a..example.com",
        "https://" + "a" * 64,
        "https://" + "a." * 130,
        "https://%61.example",
        "https://[::1",
        "https://[::ffff:1.2.3.4]",
        "https://[fe80::1%25eth0]",
        "https://127.1",
        "https://0x7f.1",
        "https://1.2.3.256",
        "https;//chat.example.com",
        "https:\\\\chat.example.com",
        "9https://chat.example.com",
    ],
)
def test_what_is_no_origin_is_told_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match="is not an origin; write an origin as browsers do"):
        parse_origin(text)


@pytest.mark.parametrize("text", ["https://me:secret@chat.example.com", "me:secret@chat.example.com"])
def test_a_password_in_an_origin_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="it has a user name in it") as caught:
        parse_origin(text)
    assert "secret" not in str(caught.value)


labels = st.text(ascii_lowercase + digits + "-", min_size=1, max_size=20)
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join).map(lambda name: f"{name}.example")


@given(
    st.sampled_from(["http", "https", "app"]),
    hosts | st.ip_addresses(v=4).map(str),
    st.none() | st.integers(1, 65535).filter(lambda port: port not in (80, 443)),
)
def test_every_plain_origin_is_taken_and_no_other_spelling_of_it(
    scheme: str, host: str, port: int | None
) -> None:
    origin = f"{scheme}://{host}" + ("" if port is None else f":{port}")
    assert parse_origin(origin) == origin
    for other in (origin + "/", origin.upper(), f"{origin}/index.html", origin.replace("://", "://x@")):
        with pytest.raises(ValueError, match="; "):
            parse_origin(other)


@given(st.text() | st.text("htps:/.*[]@09aZü ;", max_size=30))
def test_any_text_is_an_origin_of_one_line_or_a_fault_with_its_mending(text: str) -> None:
    try:
        origin = parse_origin(text)
    except ValueError as fault:
        wrong, _, right = str(fault).partition("; ")  # a UnicodeError would have no second part
        assert wrong
        assert right
        hint = re.search(r'write "([^"]+)"', right)
        if hint is not None and "example" not in hint[1]:
            assert parse_origin(hint[1]) == hint[1]
    else:
        assert origin == text
        assert origin == "*" or re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+", origin)
