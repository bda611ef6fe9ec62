"""Which request heads are served, what is refused, and that nothing else can come of any bytes."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.server.head import MAX_TARGET, Head, read_head

Fields = list[tuple[bytes, bytes]]

HOST = (b"host", b"ollama.example:8443")


def head(*more: tuple[bytes, bytes], target: bytes = b"/api/tags", version: str = "1.1") -> Head:
    return read_head(version, target, [HOST, *more])


def with_host(*hosts: bytes) -> Head:
    return read_head("1.1", b"/", [(b"host", host) for host in hosts])


# Served


def test_a_head_says_where_it_goes() -> None:
    found = head((b"accept", b"*/*"), target=b"/api/tags?a=1&b=/../c??")
    assert (found.path, found.query) == (b"/api/tags", b"a=1&b=/../c??")
    assert (found.length, found.chunked, found.expects_continue) == (None, False, False)
    assert found.single == {b"host": b"ollama.example:8443", b"accept": b"*/*"}


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/?", b"/", b""),
        (b"/?/", b"/", b"/"),
        (b"//a/../b", b"//a/../b", b""),
        (b"/a%3Fb?c", b"/a%3Fb", b"c"),
        (b"/a?%00%0d%0a", b"/a", b"%00%0d%0a"),
        (b'/a?x={"a":[1|2]}^`<>\\', b"/a", b'x={"a":[1|2]}^`<>\\'),
        (b"/" + b"a" * (MAX_TARGET - 1), b"/" + b"a" * (MAX_TARGET - 1), b""),
    ],
)
def test_path_and_query_are_parted_at_the_first_question_mark_and_left_as_they_are(
    target: bytes, path: bytes, query: bytes
) -> None:
    found = head(target=target)
    assert (found.path, found.query) == (path, query)


@pytest.mark.parametrize(
    ("field", "length", "chunked"),
    [
        ((b"content-length", b"0"), 0, False),
        ((b"content-length", b"5"), 5, False),
        ((b"content-length", b"5 \t"), 5, False),
        ((b"content-length", b"00005"), 5, False),
        ((b"content-length", b"4294967296"), 2**32, False),
        ((b"transfer-encoding", b"chunked"), None, True),
        ((b"transfer-encoding", b"Chunked "), None, True),
        ((b"transfer-encoding", b"\tCHUNKED"), None, True),
    ],
)
def test_a_head_says_how_its_body_is_framed(
    field: tuple[bytes, bytes], length: int | None, chunked: bool
) -> None:
    found = head(field)
    assert (found.length, found.chunked) == (length, chunked)


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue", b" 100-CONTINUE\t"])
def test_a_client_may_wait_for_100_continue(value: bytes) -> None:
    assert head((b"expect", value)).expects_continue


@pytest.mark.parametrize(
    "host",
    [
        b"localhost", b"LOCALHOST:8443", b"a:", b"127.0.0.1", b"127.0.0.1:11434", b"[::1]", b"[::1]:8443",
        b"[fe80::1]:", b"ollama.example.", b"a_b.example", b"xn--ollma-gra.example", b"a%20b",
        b"~!$&'()*+,;=", b" ollama.example\t",
    ],
)  # fmt: skip
def test_a_host_and_port_is_served(host: bytes) -> None:
    assert with_host(host).single == {b"host": host}


def test_other_fields_may_be_there_twice_and_the_last_one_is_told() -> None:
    found = head((b"accept", b"a"), (b"x-api-key", b"b"), (b"accept", b"c"))
    assert found.single[b"accept"] == b"c"


# Refused

TWICE = {
    "host": [HOST, HOST],
    "host that differs": [HOST, (b"host", b"elsewhere.example")],
    "content-length": [HOST, (b"content-length", b"5"), (b"content-length", b"5")],
    "content-length that differs": [HOST, (b"content-length", b"5"), (b"content-length", b"6")],
    "transfer-encoding": [HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
    "expect": [HOST, (b"expect", b"100-continue"), (b"expect", b"100-continue")],
}


@pytest.mark.parametrize("fields", TWICE.values(), ids=TWICE)
def test_a_field_that_decides_is_there_once(fields: Fields) -> None:
    with pytest.raises(ProxyError, match="is there twice") as refused:
        read_head("1.1", b"/", fields)
    assert (refused.value.code, refused.value.status) == ("malformed_request", 400)


NO_HOST = [
    b"", b" ", b"\t", b":", b":8443", b"a b", b"a:b", b"a:80:80", b"a:-1", b"a:8443x", b"user@a", b"u:p@a:1",
    b"a/b", b"a/", b"http://a", b"a?b", b"a#b", b"a\\b", b"%", b"%2", b"%zz", b"[::1", b"::1", b"[]",
    b"[::1]x", b"[::1%25eth0]", b"[::g]", b"a\x00", b"a\x7f", b"\xe4", "bücher.example".encode(), b'a"',
    b"<a>", b"{a}", b"a|b", b"a^b", b"a`b", b"a, b",
]  # fmt: skip


@pytest.mark.parametrize("host", NO_HOST)
def test_a_host_that_is_none_is_400(host: bytes) -> None:
    with pytest.raises(ProxyError, match="Host is not a host") as refused:
        with_host(host)
    assert (refused.value.code, refused.value.status) == ("malformed_request", 400)


REFUSED: dict[str, tuple[str, bytes, Fields, int]] = {
    "HTTP/1.0": ("1.0", b"/", [HOST], 400),
    "HTTP/0.9": ("0.9", b"/", [HOST], 400),
    "HTTP/2.0": ("2.0", b"/", [HOST], 400),
    "HTTP/1.2": ("1.2", b"/", [HOST], 400),
    "no host": ("1.1", b"/", [], 400),
    "no host but others": ("1.1", b"/", [(b"x-forwarded-host", b"a"), (b"hosts", b"a")], 400),
    "a target that is too long": ("1.1", b"/" + b"a" * MAX_TARGET, [HOST], 414),
    "a query that is too long": ("1.1", b"/?" + b"a" * MAX_TARGET, [HOST], 414),
    "no target": ("1.1", b"", [HOST], 400),
    "absolute-form": ("1.1", b"http://ollama.example/api/tags", [HOST], 400),
    "absolute-form in capitals": ("1.1", b"HTTPS://ollama.example/", [HOST], 400),
    "authority-form": ("1.1", b"ollama.example:443", [HOST], 400),
    "asterisk-form": ("1.1", b"*", [HOST], 400),
    "a path without its slash": ("1.1", b"api/tags", [HOST], 400),
    "a query alone": ("1.1", b"?a", [HOST], 400),
    "a query with a blank": ("1.1", b"/?a b", [HOST], 400),
    "a query with a fragment": ("1.1", b"/?a#b", [HOST], 400),
    "a query with NUL": ("1.1", b"/?a\0", [HOST], 400),
    "a query with a line break": ("1.1", b"/?a\n", [HOST], 400),
    "a query outside of ASCII": ("1.1", "/?ä".encode(), [HOST], 400),
    "upgrade": ("1.1", b"/", [HOST, (b"upgrade", b"websocket")], 400),
    "upgrade to HTTP/2": ("1.1", b"/", [HOST, (b"connection", b"upgrade"), (b"upgrade", b"h2c")], 400),
    "an empty upgrade": ("1.1", b"/", [HOST, (b"upgrade", b"")], 400),
    "gzip": ("1.1", b"/", [HOST, (b"transfer-encoding", b"gzip")], 501),
    "gzip in chunks": ("1.1", b"/", [HOST, (b"transfer-encoding", b"gzip, chunked")], 501),
    "chunks twice": ("1.1", b"/", [HOST, (b"transfer-encoding", b"chunked, chunked")], 501),
    "identity": ("1.1", b"/", [HOST, (b"transfer-encoding", b"identity")], 501),
    "an empty coding": ("1.1", b"/", [HOST, (b"transfer-encoding", b"")], 501),
    "a coding with a parameter": ("1.1", b"/", [HOST, (b"transfer-encoding", b"chunked;a=b")], 501),
    "a coding with a vertical tab": ("1.1", b"/", [HOST, (b"transfer-encoding", b"\x0bchunked")], 501),
    "another expectation": ("1.1", b"/", [HOST, (b"expect", b"200-ok")], 417),
    "an empty expectation": ("1.1", b"/", [HOST, (b"expect", b"")], 417),
    "two expectations": ("1.1", b"/", [HOST, (b"expect", b"100-continue, 100-continue")], 417),
}


@pytest.mark.parametrize(("version", "target", "fields", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_served_has_one_stated_answer(
    version: str, target: bytes, fields: Fields, status: int
) -> None:
    with pytest.raises(ProxyError) as refused:
        read_head(version, target, fields)
    assert (refused.value.code, refused.value.status) == ("malformed_request", status)


SECRET = b"oap_s3cret"


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (b"/", [HOST, (b"expect", SECRET)]),
        (b"/", [HOST, (b"transfer-encoding", SECRET)]),
        (b"/", [(b"host", SECRET + b"@a")]),
        (b"/", [HOST, (b"upgrade", SECRET)]),
        (SECRET, [HOST]),
        (b"/?\xff" + SECRET, [HOST]),
    ],
)
def test_no_refusal_repeats_what_was_sent(target: bytes, fields: Fields) -> None:
    with pytest.raises(ProxyError) as refused:
        read_head("1.1", target, fields)
    assert "s3cret" not in f"{refused.value} {refused.value.message} {refused.value.headers!r}"


# Whatever comes


def judged(version: str, target: bytes, fields: Fields) -> Head | ProxyError:
    try:
        return read_head(version, target, fields)
    except ProxyError as refused:
        return refused


names = st.one_of(
    st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"connection"]),
    st.binary(max_size=8),
)
values = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"localhost", b"chunked", b"100-continue", b"5", b"a,b"])
)
any_fields = st.lists(st.tuples(names, values), max_size=6)
targets = st.one_of(st.binary(max_size=30), st.binary(max_size=30).map(lambda rest: b"/" + rest))


@given(
    st.sampled_from(["1.1", "1.1", "1.0", ""]),
    targets,
    st.one_of(any_fields, any_fields.map(lambda f: [HOST, *f])),
)
@example("1.1", b"/", [HOST, (b"content-length", b"")])
@example("1.1", b"/", [HOST, (b"content-length", b"5_0")])
@example("1.1", b"/", [HOST, (b"content-length", b"-5")])
@example("1.1", b"/", [HOST, (b"content-length", b"\xd9\xa5")])
def test_any_bytes_are_served_or_refused_as_malformed(version: str, target: bytes, fields: Fields) -> None:
    found = judged(version, target, fields)
    if isinstance(found, ProxyError):
        assert found.code == "malformed_request"
        assert found.status in {400, 414, 417, 501}
    else:
        assert target.startswith(b"/")
        assert found.path + (b"?" + found.query if b"?" in target else b"") == target
        assert found.length is None or found.length >= 0


class Parsed:
    """What uvicorn's parser makes of a request head."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: Fields = []
        self.complete = False
        self.version = ""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse(raw: bytes) -> Parsed | None:
    parsed = Parsed()
    parser: Any = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    parsed.version = parser.get_http_version()
    return parsed if parsed.complete else None


@given(targets, any_fields)
@example(b"/", [(b"Content-Length", b"0" * 5000 + b"5")])
@example(b"/", [(b"Content-Length", b"5 ")])
@example(b"/", [(b"Transfer-Encoding", b"gzip, chunked")])
def test_what_the_parser_lets_through_is_served_or_refused_as_malformed(
    target: bytes, fields: Fields
) -> None:
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    parsed = parse(b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target, lines))
    if parsed is not None:
        found = judged(parsed.version, parsed.url, parsed.fields)
        assert isinstance(found, Head) or found.code == "malformed_request"
