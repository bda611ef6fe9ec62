"""Every refusal and failure the proxy reports, and the one table from a code to its status and texts.

Status and code are the same in every dialect; only the shape of the body follows the route.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple


class Dialect(Enum):
    """Whose clients read the error: Ollama's own, OpenAI's or Anthropic's."""

    NATIVE = "native"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    openai_type: str
    anthropic_type: str


_AUTHENTICATION = ("invalid_request_error", "authentication_error")
_REQUEST = ("invalid_request_error", "invalid_request_error")
_PERMISSION = ("invalid_request_error", "permission_error")
_SERVER = ("server_error", "api_error")
_TOO_LARGE = ("invalid_request_error", "request_too_large")
_RATE = ("invalid_request_error", "rate_limit_error")
_MISSING = ("invalid_request_error", "not_found_error")

ERRORS: dict[str, _Row] = {
    "malformed_request": _Row(400, *_REQUEST),
    "ambiguous_credentials": _Row(400, *_REQUEST),
    "unreadable_body": _Row(400, *_REQUEST),
    "missing_credentials": _Row(401, *_AUTHENTICATION),
    "invalid_credentials": _Row(401, *_AUTHENTICATION),
    "expired_credentials": _Row(401, *_AUTHENTICATION),
    "scope_denied": _Row(403, *_PERMISSION),
    "model_denied": _Row(403, *_PERMISSION),
    "cloud_denied": _Row(403, *_PERMISSION),
    "option_denied": _Row(403, *_PERMISSION),
    "unknown_route": _Row(404, *_MISSING),
    "method_not_allowed": _Row(405, *_REQUEST),
    "body_too_large": _Row(413, *_TOO_LARGE),
    "headers_too_large": _Row(431, *_REQUEST),
    "too_many_failures": _Row(429, *_RATE),
    "upstream_unreachable": _Row(502, *_SERVER),
    "upstream_protocol_error": _Row(502, *_SERVER),
    "internal_error": _Row(500, *_SERVER),
    "queue_full": _Row(503, *_SERVER),
    "draining": _Row(503, *_SERVER),
}

COUNTED_AS_DENIED = frozenset({400, 401, 403, 429})
"""The statuses of ours that ``ollama_proxy_denied_total`` counts."""

REASONS: dict[int, bytes] = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
}


class ProxyError(Exception):
    """A request that ends with an answer of our own.

    ``code`` is a row of `ERRORS`; ``message`` says what is wrong and what to do about it, and never
    holds anything that the client sent. ``status`` is given only where HTTP has a finer one than the
    code's (408, 414, 417 and 501 are all ``malformed_request``). ``headers`` go out with the answer.
    """

    def __init__(
        self, code: str, message: str, *, status: int = 0, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or ERRORS[code].status
        self.headers = headers


@lru_cache(maxsize=512)
def error_body(code: str, message: str, dialect: Dialect) -> bytes:
    """One line of JSON: the Go client reads only the first line of an error."""
    row = ERRORS[code]
    shape: dict[str, object]
    if dialect is Dialect.OPENAI:
        shape = {"error": {"message": message, "type": row.openai_type, "param": None, "code": code}}
    elif dialect is Dialect.ANTHROPIC:
        shape = {"type": "error", "error": {"type": row.anthropic_type, "message": message, "code": code}}
    else:
        shape = {"error": message, "code": code}
    return json.dumps(shape, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Answer(NamedTuple):
    """An error of ours, ready to be sent, and the length of its body."""

    data: bytes
    body_length: int


def render(
    error: ProxyError,
    dialect: Dialect,
    request_id: bytes,
    *,
    date: bytes,
    close: bool,
    head_only: bool,
    own_fields: bytes = b"",
) -> Answer:
    """The whole answer. ``head_only`` leaves the body out (answers to HEAD, RFC 9110 section 9.3.2).

    ``date`` is the value of the Date field (RFC 9110 section 6.6.1); ``close`` says that the connection
    ends here. ``own_fields`` are more field lines, each with its line end.
    """
    status_line, rest, body = _parts(error.code, error.message, error.status, error.headers, dialect, close)
    identifiers = b"X-Request-Id: %b\r\n%b" % (request_id, own_fields)
    if dialect is Dialect.ANTHROPIC:
        identifiers += b"request-id: %b\r\n" % request_id
    head = b"%bDate: %b\r\n%b%b" % (status_line, date, identifiers, rest)
    return Answer(head, 0) if head_only else Answer(head + body, len(body))


@lru_cache(maxsize=512)
def _parts(
    code: str,
    message: str,
    status: int,
    headers: tuple[tuple[bytes, bytes], ...],
    dialect: Dialect,
    close: bool,
) -> tuple[bytes, bytes, bytes]:
    """What is the same in every such answer: the status line, the other fields, the body."""
    body = error_body(code, message, dialect)
    fields = [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    fields += [b"%b: %b" % field for field in headers]
    if close:
        fields.append(b"Connection: close")
    return (
        b"HTTP/1.1 %d %b\r\n" % (status, REASONS[status]),
        b"\r\n".join(fields) + b"\r\n\r\n",
        body,
    )
