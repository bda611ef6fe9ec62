"""Every error of ours, in every dialect, as bytes on the wire."""

from __future__ import annotations

import json
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import COUNTED_AS_DENIED, ERRORS, REASONS, Dialect, ProxyError, error_body, render

# The contract with users: status and code are the same in every dialect.
CONTRACT = {
    400: {"malformed_request", "ambiguous_credentials", "unreadable_body"},
    401: {"missing_credentials", "invalid_credentials", "expired_credentials"},
    403: {"scope_denied", "model_denied", "cloud_denied", "option_denied"},
    404: {"unknown_route"},
    405: {"method_not_allowed"},
    413: {"body_too_large"},
    431: {"headers_too_large"},
    429: {"rate_limited", "quota_exceeded", "too_many_concurrent", "too_many_failures"},
    500: {"internal_error"},
    502: {"upstream_unreachable", "upstream_protocol_error"},
    503: {"queue_full", "draining", "queue_timeout"},
}
STATUS = {code: status for status, codes in CONTRACT.items() for code in codes}

# What the SDKs raise by: Anthropic's own types, and those that OpenAI's errors carry.
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
}

NOW = {
    "malformed_request", "ambiguous_credentials", "missing_credentials", "invalid_credentials",
    "expired_credentials", "scope_denied", "unknown_route", "method_not_allowed", "headers_too_large",
    "upstream_unreachable", "upstream_protocol_error", "internal_error", "queue_full", "draining",
}  # fmt: skip
"""The codes without which this version could not answer."""

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
MESSAGE = "what is wrong: what to do"

codes = pytest.mark.parametrize("code", sorted(ERRORS))
dialects = pytest.mark.parametrize("dialect", list(Dialect))


class Answer:
    """An answer as a client's parser reads it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.reason = b""
        self.fields: list[tuple[str, str]] = []
        self.body = b""
        self.complete = False
        parser: Any = httptools.HttpResponseParser(self)
        parser.feed_data(raw)
        self.status: int = parser.get_status_code()
        self.version: str = parser.get_http_version()

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode().lower(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True

    def header(self, name: str) -> str | None:
        found = [value for field, value in self.fields if field == name]
        assert len(found) < 2, f"{name} is there twice"
        return found[0] if found else None


def answer(
    error: ProxyError, dialect: Dialect = Dialect.NATIVE, *, close: bool = False, head_only: bool = False
) -> Answer:
    rendered = render(error, dialect, b"req-1", date=DATE, close=close, head_only=head_only)
    head, _, body = rendered.data.partition(b"\r\n\r\n")
    assert head
    assert rendered.body_length == len(body)
    return Answer(rendered.data)


def test_every_code_has_the_status_that_users_rely_on() -> None:
    assert set(ERRORS) >= NOW
    assert {code: row.status for code, row in ERRORS.items()} == {code: STATUS[code] for code in ERRORS}


def test_every_status_of_ours_has_a_reason() -> None:
    statuses = {row.status for row in ERRORS.values()} | {408, 414, 417, 501}
    assert statuses <= set(REASONS)
    assert all(reason.isascii() for reason in REASONS.values())


def test_what_counts_as_denied_is_what_the_contract_says() -> None:
    assert {400, 401, 403, 429} == COUNTED_AS_DENIED


@codes
def test_a_native_error_is_text_and_code(code: str) -> None:
    assert json.loads(error_body(code, MESSAGE, Dialect.NATIVE)) == {"error": MESSAGE, "code": code}


@codes
def test_an_openai_error_has_all_that_its_sdk_reads(code: str) -> None:
    kind = "server_error" if STATUS[code] >= 500 else "invalid_request_error"
    expected = {"error": {"message": MESSAGE, "type": kind, "param": None, "code": code}}
    assert json.loads(error_body(code, MESSAGE, Dialect.OPENAI)) == expected


@codes
def test_an_anthropic_error_has_anthropics_own_type_and_our_code(code: str) -> None:
    expected = {
        "type": "error",
        "error": {"type": ANTHROPIC_TYPES[STATUS[code]], "message": MESSAGE, "code": code},
    }
    assert json.loads(error_body(code, MESSAGE, Dialect.ANTHROPIC)) == expected


@codes
@dialects
@given(st.text(max_size=40))
def test_a_body_is_one_line_whatever_the_message_holds(code: str, dialect: Dialect, message: str) -> None:
    # The Go client reads only the first line, so the whole error must be on it.
    body = error_body(code, message, dialect)
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1
    assert b"\r" not in body
    document = json.loads(body)
    error = document["error"]
    assert (error if dialect is Dialect.NATIVE else error["message"]) == message


@codes
@dialects
@pytest.mark.parametrize("close", [False, True])
def test_an_answer_is_whole_http_with_the_right_length(code: str, dialect: Dialect, close: bool) -> None:
    found = answer(ProxyError(code, MESSAGE), dialect, close=close)
    assert (found.version, found.status) == ("1.1", STATUS[code])
    assert found.reason == REASONS[STATUS[code]]
    assert found.complete
    assert found.body == error_body(code, MESSAGE, dialect)
    assert found.header("content-length") == str(len(found.body))
    assert found.header("content-type") == "application/json"
    assert found.header("date") == DATE.decode()
    assert found.header("x-request-id") == "req-1"
    assert found.header("request-id") == ("req-1" if dialect is Dialect.ANTHROPIC else None)
    assert found.header("connection") == ("close" if close else None)
    assert found.header("transfer-encoding") is None


@codes
@dialects
@pytest.mark.parametrize("close", [False, True])
def test_the_answer_to_head_has_the_same_fields_and_no_body(code: str, dialect: Dialect, close: bool) -> None:
    error = ProxyError(code, MESSAGE)
    found = answer(error, dialect, close=close, head_only=True)
    assert found.raw.endswith(b"\r\n\r\n")
    assert found.raw.count(b"\r\n\r\n") == 1
    assert found.fields == answer(error, dialect, close=close).fields


@dialects
def test_the_errors_own_fields_go_out_in_order(dialect: Dialect) -> None:
    headers = ((b"WWW-Authenticate", b'Bearer realm="a"'), (b"Retry-After", b"5"))
    found = answer(ProxyError("missing_credentials", MESSAGE, headers=headers), dialect)
    own = [field for field in found.fields if field[0] in ("www-authenticate", "retry-after")]
    assert own == [("www-authenticate", 'Bearer realm="a"'), ("retry-after", "5")]


def test_two_errors_of_one_code_keep_their_own_fields_and_requests() -> None:
    plain, retry = (
        ProxyError("draining", MESSAGE),
        ProxyError("draining", MESSAGE, headers=((b"Retry-After", b"5"),)),
    )
    assert [answer(error).header("retry-after") for error in (plain, retry, plain)] == [None, "5", None]
    ids = [
        render(plain, Dialect.NATIVE, i, date=DATE, close=False, head_only=False).data for i in (b"a", b"b")
    ]
    assert [Answer(raw).header("x-request-id") for raw in ids] == ["a", "b"]


@pytest.mark.parametrize("status", [408, 414, 417, 501])
@dialects
def test_a_finer_status_takes_the_place_of_the_codes_own(status: int, dialect: Dialect) -> None:
    found = answer(ProxyError("malformed_request", MESSAGE, status=status), dialect)
    assert (found.status, found.reason) == (status, REASONS[status])
    assert found.body == error_body("malformed_request", MESSAGE, dialect)


def test_an_error_says_in_its_text_what_the_client_reads() -> None:
    error = ProxyError("draining", MESSAGE)
    assert (str(error), error.message, error.code, error.status) == (MESSAGE, MESSAGE, "draining", 503)


def test_a_code_that_is_not_in_the_table_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        ProxyError("teapot", MESSAGE)
