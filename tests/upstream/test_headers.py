"""Which header fields cross the proxy in either direction, and in what order."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.headers import Fields, client_head, named_in_connection, upstream_head

AUTHORITY = b"127.0.0.1:11434"
OWN = b"X-Request-Id: abc\r\n\r\n"
END = b"\r\n"

# What must not reach Ollama, and why.
ENDS_HERE = {
    "hop-by-hop": ["connection", "keep-alive", "te", "trailer", "upgrade", "proxy-connection"],
    "credentials": ["authorization", "x-api-key", "proxy-authorization", "proxy-authenticate", "cookie"],
    "answered here": ["host", "expect", "origin"],
    "forwarding": [
        *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-uri"),
        *(
            "x-forwarded-user",
            "x-real-ip",
            "x-original-url",
            "client-ip",
            "true-client-ip",
            "cf-connecting-ip",
        ),
    ],
}

PASSES = [
    *("accept", "accept-encoding", "accept-language", "anthropic-version", "anthropic-beta", "cache-control"),
    *("content-type", "content-encoding", "content-length", "transfer-encoding", "if-none-match", "range"),
    *("openai-organization", "referer", "traceparent", "user-agent", "x-request-id", "x-stainless-lang"),
    *("x-forwarded", "proxy", "cookies", "hosts", "x-real"),
]

# Names and values as the parser lets them through: tokens, and anything but line breaks and NUL.
names = st.one_of(
    st.from_regex(rb"[a-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True),
    st.sampled_from([name.encode() for names in [*ENDS_HERE.values(), PASSES] for name in names]),
)
values = st.binary(max_size=20).filter(lambda value: not re.search(rb"[\r\n\0]", value))
fields = st.lists(st.tuples(names, values), max_size=12)


def to_ollama(fields: Fields, connection: bytes | None = None) -> Fields:
    """The fields that Ollama is sent after its Host."""
    head = upstream_head("POST", b"/api/chat?x=1", fields, AUTHORITY, connection)
    first, host, *lines = split(head)
    assert (first, host) == (b"POST /api/chat?x=1 HTTP/1.1", b"Host: " + AUTHORITY)
    return [pair(line) for line in lines]


def to_client(fields: Fields, status: int = 200, *, body: bool = True) -> Fields:
    """The fields that the client is sent, the proxy's own and the framing that it adds left out."""
    head = client_head(status, b"OK", fields, OWN, body=body)
    first, *lines = split(head.data)
    assert first == b"HTTP/1.1 %d OK" % status
    assert lines.pop() == OWN[:-4]
    found = [pair(line) for line in lines]
    framed = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in found[:-1])
    if found and found[-1] == (b"Transfer-Encoding", b"chunked") and not framed and found[-1] not in fields:
        found.pop()
    return found


def split(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def pair(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b": ")
    return name, value


# To Ollama


@pytest.mark.parametrize("name", [name for names in ENDS_HERE.values() for name in names])
def test_a_field_with_a_reason_ends_here(name: str) -> None:
    around = [(b"accept", b"*/*"), (b"user-agent", b"curl")]
    assert to_ollama([around[0], (name.encode(), b"x"), around[1], (name.encode(), b"y")]) == around


@pytest.mark.parametrize("name", PASSES)
def test_a_field_without_a_reason_passes(name: str) -> None:
    assert to_ollama([(name.encode(), b"x")]) == [(name.encode(), b"x")]


def test_order_duplicates_and_values_stay_as_they_came() -> None:
    sent = [
        (b"b", b"2"),
        (b"a", b""),
        (b"b", b"1"),
        (b"accept", b"text/*;q=0.3, */*  "),
        (b"b", b"2"),
        (b"x-latin", b"\xe4\xff"),
    ]
    assert to_ollama(sent) == sent


@pytest.mark.parametrize(
    ("connection", "named"),
    [
        (b"close", {b"close"}),
        (b"X-One", {b"x-one"}),
        (b"keep-alive, X-One ,\tX-Two\t", {b"keep-alive", b"x-one", b"x-two"}),
        (b"x-one,x-one", {b"x-one"}),
        (b"Content-Length, X-One", {b"x-one"}),
        (b"TRANSFER-ENCODING", set()),
        (b"content-length\t,transfer-encoding ", set()),
    ],
)
def test_connection_names_what_is_hop_by_hop_but_never_the_framing(
    connection: bytes, named: set[bytes]
) -> None:
    assert named_in_connection(connection) - {b""} == named


def test_a_field_named_in_connection_ends_here_and_others_do_not() -> None:
    sent = [(b"x-one", b"1"), (b"x-two", b"2"), (b"x-on", b"3"), (b"x-one", b"4")]
    assert to_ollama(sent, b"close, X-ONE") == [(b"x-two", b"2"), (b"x-on", b"3")]


@pytest.mark.parametrize("framing", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
def test_the_framing_passes_even_if_connection_names_it(framing: tuple[bytes, bytes]) -> None:
    assert to_ollama([framing], b"Content-Length, Transfer-Encoding, close") == [framing]


@given(fields, st.one_of(st.none(), st.lists(names, max_size=3).map(b", ".join)))
def test_whatever_is_sent_ollama_gets_whole_lines_of_it_in_order(
    sent: Fields, connection: bytes | None
) -> None:
    head = upstream_head("POST", b"/api/chat", sent, AUTHORITY, connection)
    lines = split(head)
    assert head.count(b"\r") == head.count(b"\n") == len(lines) + 1
    kept = [pair(line) for line in lines[2:]]
    remaining = iter(sent)
    assert all(field in remaining for field in kept), "the order is that of the client"
    dropped = set((connection or b"").lower().split(b", ")) - {b"content-length", b"transfer-encoding"}
    forbidden = {name.encode() for names in ENDS_HERE.values() for name in names}
    assert not {name for name, _ in kept} & (forbidden | dropped)
    prefixes = (b"proxy-", b"x-forwarded-", b"x-real-", b"x-original-")
    expected = [
        field for field in sent if field[0] not in forbidden | dropped and not field[0].startswith(prefixes)
    ]
    assert kept == expected


# To the client


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authenticate", "Proxy-Connection"),
        "X-Request-Id",
    ],
)  # fmt: skip
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
def test_of_a_response_hop_by_hop_fields_end_here(name: str, spelled: object) -> None:
    assert callable(spelled)
    field = (spelled(name).encode(), b"keep-alive")
    around = [(b"Content-Length", b"5"), (b"Content-Type", b"text/plain")]
    assert to_client([around[0], field, around[1]]) == around


def test_of_a_response_order_duplicates_spelling_and_values_stay_as_they_came() -> None:
    sent = [
        (b"Set-Cookie", b"a=1"),
        (b"content-LENGTH", b"5"),
        (b"Set-Cookie", b"b=2; Path=/"),
        (b"x-EMPTY", b""),
        (b"Set-Cookie", b"a=1"),
        (b"Location", b"/api/chat"),
        (b"X-Latin", b"\xe4"),
    ]
    assert to_client(sent) == sent


def test_of_a_response_a_field_named_in_any_connection_field_ends_here() -> None:
    sent = [
        (b"X-One", b"1"),
        (b"Connection", b"x-one"),
        (b"X-Two", b"2"),
        (b"X-Three", b"3"),
        (b"CONNECTION", b"close, X-TWO, content-length"),
        (b"Content-Length", b"5"),
    ]
    assert to_client(sent) == [(b"X-Three", b"3"), (b"Content-Length", b"5")]


@pytest.mark.parametrize(
    ("reason", "status", "expected"),
    [
        (b"OK", 200, b"HTTP/1.1 200 OK\r\n"),
        (b"Fine", 200, b"HTTP/1.1 200 Fine\r\n"),
        (b"", 404, b"HTTP/1.1 404 Not Found\r\n"),
        (b"", 299, b"HTTP/1.1 299 \r\n"),
        (b"I'm a teapot", 418, b"HTTP/1.1 418 I'm a teapot\r\n"),
    ],
)
def test_status_and_reason_are_those_of_ollama(reason: bytes, status: int, expected: bytes) -> None:
    assert client_head(status, reason, [], END, body=True).data.startswith(expected)


FRAMINGS = {
    "a length": ([(b"Content-Length", b"5")], 200, True, [b"Content-Length: 5"], False),
    "chunks": ([(b"Transfer-Encoding", b"Chunked")], 200, True, [b"Transfer-Encoding: Chunked"], True),
    "the end of the connection": ([], 200, True, [b"Transfer-Encoding: chunked"], True),
    "HEAD with a length": ([(b"Content-Length", b"5")], 200, False, [b"Content-Length: 5"], False),
    "HEAD with chunks": (
        [(b"Transfer-Encoding", b"chunked")], 200, False, [b"Transfer-Encoding: chunked"], False
    ),
    "HEAD without": ([], 200, False, [], False),
    "304 with a length": ([(b"Content-Length", b"5")], 304, False, [b"Content-Length: 5"], False),
    "204": ([], 204, False, [], False),
    "204 with chunks": ([(b"Transfer-Encoding", b"chunked")], 204, False, [], False),
    "103 with chunks": ([(b"Transfer-Encoding", b"chunked")], 103, False, [], False),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "body", "lines", "chunked"), FRAMINGS.values(), ids=FRAMINGS)
def test_a_body_is_framed_as_it_came_or_else_in_chunks(
    sent: Fields, status: int, body: bool, lines: list[bytes], chunked: bool
) -> None:
    head = client_head(status, b"x", sent, END, body=body)
    assert split(head.data)[1:] == lines
    assert head.chunked is chunked


@pytest.mark.parametrize(
    "coding", [b"gzip", b"gzip, chunked", b"chunked, gzip", b"identity", b"", b"chunkedx"]
)
def test_a_transfer_coding_that_is_not_understood_is_not_passed_on(coding: bytes) -> None:
    with pytest.raises(ValueError, match="transfer coding"):
        client_head(200, b"OK", [(b"Transfer-Encoding", coding)], END, body=True)


def test_chunks_that_are_announced_twice_are_not_passed_on() -> None:
    # Together they say "chunked, chunked" (RFC 9110 section 5.3), which the one framing written would not be.
    with pytest.raises(ValueError, match="transfer coding"):
        client_head(200, b"OK", [(b"Transfer-Encoding", b"chunked")] * 2, END, body=True)


@pytest.mark.parametrize("content_type", [b"application/x-ndjson", b"text/event-stream; charset=utf-8", b""])
def test_what_the_answer_says_it_is_is_told(content_type: bytes) -> None:
    sent = [(b"Content-Type", content_type)] if content_type else []
    assert client_head(200, b"OK", sent, END, body=True).content_type == content_type


def test_the_proxys_own_fields_stand_last() -> None:
    own = b"X-Request-Id: abc\r\nConnection: close\r\n\r\n"
    head = client_head(200, b"OK", [(b"Content-Length", b"5")], own, body=True)
    assert head.data == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + own


@given(fields)
def test_whatever_ollama_answers_the_client_gets_whole_lines_of_it_in_order(sent: Fields) -> None:
    sent = [field for field in sent if field[0] != b"transfer-encoding"]
    head = client_head(200, b"OK", [(b"Content-Length", b"0"), *sent], OWN, body=True)
    lines = split(head.data)
    assert head.data.count(b"\r") == head.data.count(b"\n") == len(lines) + 1
    dropped = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"x-request-id"}
    for name, value in sent:
        if name == b"connection":
            dropped |= {token.strip(b" \t").lower() for token in value.split(b",")} - {b"content-length"}
    expected = [f for f in sent if f[0] not in dropped and not f[0].startswith(b"proxy-")]
    assert [pair(line) for line in lines[2:-1]] == expected
