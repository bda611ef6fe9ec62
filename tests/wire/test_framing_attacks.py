"""Requests that two servers could read in two ways: each has one answer, none reaches Ollama."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from .conftest import Connect, over_tls_and_plain
from .messages import check_refusal, chunked, request
from .site import Keys, Site
from .upstream import Upstream

HELLO = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n"
LINES = b"Host: localhost\r\nX-Api-Key: KEY\r\n"
POST = b"POST /api/generate HTTP/1.1\r\n" + LINES
GET = b"GET /api/tags HTTP/1.1\r\n" + LINES
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

# Everything here is answered 400 malformed_request, and the connection ends.
MALFORMED = {
    # length and coding
    "content_length_then_chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO,
    "chunked_then_content_length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + HELLO,
    "two_lengths_that_differ": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two_lengths_that_agree": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a_list_of_lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a_negative_length": POST + b"Content-Length: -1\r\n\r\n",
    "a_length_with_plus": POST + b"Content-Length: +5\r\n\r\nhello",
    "a_hexadecimal_length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a_length_with_a_blank_inside": POST + b"Content-Length: 5 5\r\n\r\nhello",
    "an_empty_length": POST + b"Content-Length:\r\n\r\n",
    "a_length_beyond_64_bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a_length_in_arabic_digits": POST + "Content-Length: \u0665\r\n\r\nhello".encode(),
    "chunked_twice_in_one_field": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + HELLO,
    "chunked_twice_in_two_fields": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    + HELLO,
    "chunked_not_last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + HELLO,
    "chunked_then_identity_in_two_fields": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
    + HELLO,
    "identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "chunked_after_a_vertical_tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + HELLO,
    "an_empty_coding": POST + b"Transfer-Encoding:\r\n\r\n" + HELLO,
    "chunked_over_http_1_0": POST.replace(b"/1.1", b"/1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + HELLO,
    "chunked_with_a_blank_before_the_colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + HELLO,
    "chunked_folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + HELLO,
    # field lines
    "a_folded_line": GET + b"X-A: 1\r\n 2\r\n\r\n",
    "a_line_folded_with_a_tab": GET + b"X-A: 1\r\n\t2\r\n\r\n",
    "a_blank_before_the_first_field": b"GET /api/tags HTTP/1.1\r\n " + LINES + b"\r\n",
    "a_blank_before_the_colon": GET + b"X-A : 1\r\n\r\n",
    "a_tab_before_the_colon": GET + b"X-A\t: 1\r\n\r\n",
    "a_blank_in_the_name": GET + b"X A: 1\r\n\r\n",
    "a_bracket_in_the_name": GET + b"X(A): 1\r\n\r\n",
    "a_letter_beyond_ascii_in_the_name": GET + b"X-\xe9: 1\r\n\r\n",
    "an_empty_name": GET + b": 1\r\n\r\n",
    "a_line_without_a_colon": GET + b"X-A\r\n\r\n",
    "a_nul_in_the_name": GET + b"X\0A: 1\r\n\r\n",
    "a_nul_in_the_value": GET + b"X-A: 1\0 2\r\n\r\n",
    "a_bell_in_the_value": GET + b"X-A: 1\a2\r\n\r\n",
    "a_form_feed_in_the_value": GET + b"X-A: 1\f2\r\n\r\n",
    "an_escape_in_the_value": GET + b"X-A: \x1b[2J\r\n\r\n",
    "a_delete_in_the_value": GET + b"X-A: 1\x7f2\r\n\r\n",
    # bare LF and CR
    "lf_after_the_request_line": b"GET /api/tags HTTP/1.1\n" + LINES + b"\r\n",
    "lf_after_a_field": GET + b"X-A: 1\n\r\n",
    "lf_between_two_fields": GET + b"X-A: 1\nX-B: 2\r\n\r\n",
    "lf_as_the_empty_line": GET + b"\n",
    "lf_only": (GET + b"\r\n").replace(b"\r\n", b"\n"),
    "cr_after_the_request_line": b"GET /api/tags HTTP/1.1\r" + LINES + b"\r\n",
    "cr_in_the_target": b"GET /api/\rtags HTTP/1.1\r\n" + LINES + b"\r\n",
    "cr_in_a_name": GET + b"X-\rA: 1\r\n\r\n",
    "cr_in_a_value": GET + b"X-A: 1\r2\r\n\r\n",
    "cr_as_a_line_end": GET + b"X-A: 1\rX-B: 2\r\n\r\n",
    "two_crs_at_a_line_end": GET + b"X-A: 1\r\r\n\r\n",
    "cr_as_the_empty_line": GET + b"\rGET",
    # chunks
    "a_negative_chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a_chunk_with_0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a_chunk_with_plus": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "a_chunk_that_is_no_number": CHUNKED + b"five\r\nhello\r\n0\r\n\r\n",
    "an_empty_chunk_size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a_blank_before_the_chunk_size": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "a_blank_after_the_chunk_size": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "a_chunk_size_beyond_64_bits": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a_chunk_size_of_100_digits": CHUNKED + b"F" * 100 + b"\r\nhello\r\n0\r\n\r\n",
    "a_chunk_longer_than_said": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "a_chunk_shorter_than_said": CHUNKED + b"6\r\nhello\r\n0\r\n\r\n",
    "lf_after_the_chunk_size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "lf_after_the_chunk": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "lf_after_the_last_chunk": CHUNKED + b"5\r\nhello\r\n0\n\r\n",
    "cr_after_the_chunk_size": CHUNKED + b"5\rhello\r\n0\r\n\r\n",
    "nothing_after_the_chunk": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "a_nul_in_the_chunk_size": CHUNKED + b"5\0\r\nhello\r\n0\r\n\r\n",
    "lf_in_a_chunk_extension": CHUNKED + b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    "a_bad_trailer": CHUNKED + b"5\r\nhello\r\n0\r\nX A: 1\r\n\r\n",
    # Host
    "no_host": b"GET /api/tags HTTP/1.1\r\nX-Api-Key: KEY\r\n\r\n",
    "two_hosts": GET + b"Host: localhost\r\n\r\n",
    "two_hosts_that_differ": GET + b"Host: example.org\r\n\r\n",
    "a_host_with_a_path": GET.replace(b"localhost", b"localhost/x") + b"\r\n",
    "a_host_with_a_user": GET.replace(b"localhost", b"a@localhost") + b"\r\n",
    "a_host_with_a_blank": GET.replace(b"localhost", b"local host") + b"\r\n",
    "a_host_list": GET.replace(b"localhost", b"localhost, example.org") + b"\r\n",
    "a_host_with_a_bad_port": GET.replace(b"localhost", b"localhost:port") + b"\r\n",
    # targets (RFC 9112, 3.2); paths have a file of their own
    "an_absolute_form": GET.replace(b"/api", b"http://localhost/api") + b"\r\n",
    "an_absolute_form_elsewhere": GET.replace(b"/api", b"https://example.org/api") + b"\r\n",
    "an_authority_form": b"CONNECT localhost:11434 HTTP/1.1\r\n" + LINES + b"\r\n",
    "an_asterisk_form": b"OPTIONS * HTTP/1.1\r\n" + LINES + b"\r\n",
    "a_get_of_asterisk": b"GET * HTTP/1.1\r\n" + LINES + b"\r\n",
    "a_target_without_a_slash": GET.replace(b"/api", b"api") + b"\r\n",
    "no_target": GET.replace(b"/api/tags ", b"") + b"\r\n",
    "a_blank_in_the_target": GET.replace(b"tags", b"ta gs") + b"\r\n",
    "a_nul_in_the_target": GET.replace(b"tags", b"ta\0gs") + b"\r\n",
    "a_tab_after_the_method": GET.replace(b"GET ", b"GET\t") + b"\r\n",
    # versions, upgrades and methods
    "http_1_0": GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
    "http_1_0_with_keep_alive": GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Connection: keep-alive\r\n\r\n",
    "http_1_0_without_a_host": b"GET /api/tags HTTP/1.0\r\nX-Api-Key: KEY\r\n\r\n",
    "an_upgrade_to_websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an_upgrade_to_h2c": GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    "an_upgrade_of_a_post": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    "http_0_9": b"GET /api/tags\r\n\r\n",
    "http_1_2": GET.replace(b"HTTP/1.1", b"HTTP/1.2") + b"\r\n",
    "http_2_0": GET.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n",
    "http_11": GET.replace(b"HTTP/1.1", b"HTTP/11") + b"\r\n",
    "http_1_10": GET.replace(b"HTTP/1.1", b"HTTP/1.10") + b"\r\n",
    "a_version_in_lower_case": GET.replace(b"HTTP/1.1", b"http/1.1") + b"\r\n",
    "another_protocol": GET.replace(b"HTTP/1.1", b"ICY/1.1") + b"\r\n",
    "the_http2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an_unknown_method": GET.replace(b"GET", b"BREW") + b"\r\n",
    "a_method_in_lower_case": GET.replace(b"GET", b"get") + b"\r\n",
    "a_nul_in_the_method": GET.replace(b"GET", b"G\0T") + b"\r\n",
    "no_method": GET[4:] + b"\r\n",
    "words": b"EHLO localhost\r\n\r\n",
    "zeros": bytes(64),
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_answered_400_and_never_forwarded(
    raw: bytes, connect: Connect, keys: Keys, upstream: Upstream, good: Callable[[], None]
) -> None:
    answer = connect().request(raw.replace(b"KEY", keys.every.encode()))
    check_refusal(answer, 400, "malformed_request")
    assert answer.header("connection") == "close"
    assert upstream.reached() == b""
    good()


@over_tls_and_plain
def test_after_a_malformed_request_the_connection_ends(connect: Connect, keys: Keys) -> None:
    """It lingers first, so that the answer is not lost in a reset."""
    client = connect()
    raw = MALFORMED["two_lengths_that_differ"].replace(b"KEY", keys.every.encode())
    check_refusal(client.request(raw + SMUGGLED), 400, "malformed_request")
    client.end(5)


@pytest.mark.parametrize(
    "field", ["gzip, chunked", "gzip", "br, chunked", "xchunked", "chunkedx", '"chunked"']
)
def test_a_transfer_coding_that_is_not_implemented_is_answered_501(
    field: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    raw = request("POST", "/api/generate", keys.every, f"Transfer-Encoding: {field}") + HELLO
    check_refusal(connect().request(raw), 501, None)
    assert upstream.reached() == b""


def test_an_unknown_expectation_is_answered_417(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    raw = request("POST", "/api/generate", keys.every, "Expect: the-unexpected", body=b"{}")
    check_refusal(connect().request(raw), 417, None)
    assert upstream.reached() == b""


@pytest.mark.parametrize("fault", [name for name in MALFORMED if "chunk" in name])
def test_a_malformed_request_byte_by_byte_is_answered_the_same(
    fault: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    """A bad body may show only after its head was forwarded: then Ollama must see it torn."""
    client = connect()
    client.send_in_pieces(MALFORMED[fault].replace(b"KEY", keys.every.encode())[:-1])
    assert client.response().status == 400
    for exchange in upstream.requests:
        exchange.left_at(5)
        assert not exchange.connection.received.endswith(b"0\r\n\r\n")


def test_a_request_hidden_behind_a_refused_one_is_not_read(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    attack = request("POST", "/api/generate", keys.every, "Transfer-Encoding: chunked", body=b"0\r\n\r\n")
    client = connect()
    check_refusal(client.request(attack + SMUGGLED), 400, "malformed_request")
    client.end()
    assert upstream.reached() == b""


def test_text_behind_a_get_is_read_as_the_next_request(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    """Without Content-Length a GET has no body: what follows needs a credential of its own."""
    client = connect()
    first = client.request(request("GET", "/api/version", keys.every) + SMUGGLED)
    second = client.response()
    assert first.status == 200
    check_refusal(second, 401, "missing_credentials")
    assert [exchange.target for exchange in upstream.requests] == ["/api/version"]


def test_garbage_behind_a_get_is_answered_400_after_the_answer(
    connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client = connect()
    first = client.request(request("GET", "/api/version", keys.every) + b"\0garbage\r\n\r\n")
    assert first.status == 200
    check_refusal(client.response(), 400, "malformed_request")
    client.end()
    assert len(upstream.requests) == 1


ENDLESS = {
    "chunk_extension": (b"5;", b"a" * 65536),
    "trailer": (b"0\r\nX-A: ", b"a" * 65536),
    "trailers": (b"0\r\n", b"X-A: 1\r\n" * 8192),
}


@pytest.mark.parametrize(("before", "endless"), ENDLESS.values(), ids=ENDLESS)
def test_what_belongs_to_a_chunked_body_has_an_end_too(
    before: bytes, endless: bytes, site: Site, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    client, rss = connect(), site.rss()
    client.send(CHUNKED.replace(b"KEY", keys.every.encode()) + before)
    with contextlib.suppress(OSError):
        for _ in range(256):
            client.send(endless)
    check_refusal(client.response(), 400, "malformed_request")
    assert site.rss() - rss < 8 << 20
    for exchange in upstream.requests:
        exchange.left_at(5)


def test_trailers_are_dropped_and_change_nothing(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    head = request("POST", "/api/generate", None, "Transfer-Encoding: chunked")
    client = connect()
    answer = client.request(head + chunked(b"{}")[:-2] + b"X-Api-Key: " + keys.every.encode() + b"\r\n\r\n")
    check_refusal(answer, 401, "missing_credentials")
    authorised = request("POST", "/api/generate", keys.every, "Transfer-Encoding: chunked")
    answer = connect().request(authorised + chunked(b"{}")[:-2] + b"X-Trailer: 1\r\nHost: evil\r\n\r\n")
    assert answer.status == 200
    assert b"railer" not in upstream.reached()
    assert b"evil" not in upstream.reached()
