"""Requests as bytes, and what every refusal must look like."""

from __future__ import annotations

import json

from .client import Response

NATIVE, OPENAI, ANTHROPIC = "native", "openai", "anthropic"

ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    502: "api_error",
}


def request(
    method: str,
    target: str | bytes,
    key: str | None = None,
    *headers: str | bytes,
    body: bytes | None = None,
    host: str = "localhost",
) -> bytes:
    """One HTTP/1.1 request; with `body` its Content-Length, with `key` X-Api-Key."""
    raw = target.encode("latin-1") if isinstance(target, str) else target
    lines = [method.encode() + b" " + raw + b" HTTP/1.1", b"Host: " + host.encode()]
    if key is not None:
        lines.append(b"X-Api-Key: " + key.encode("latin-1"))
    lines += [line.encode("latin-1") if isinstance(line, str) else line for line in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def dialect_of(path: str) -> str:
    if path == "/v1/messages":
        return ANTHROPIC
    return OPENAI if path.startswith("/v1/") else NATIVE


def check_refusal(
    answer: Response, status: int, code: str | None, dialect: str = NATIVE, method: str = "GET"
) -> None:
    """Hold a refusal to the contract: status, code, a body in the route's dialect, the headers it must have.

    The answer to HEAD has the headers alone (RFC 9110, 9.3.2).
    """
    body = answer.body.decode()
    assert answer.status == status, body
    assert answer.torn is None
    assert int(answer.header("content-length") or 0) > 0
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")
    if status == 401:
        assert (answer.header("www-authenticate") or "").startswith("Bearer")
    if status == 405:
        assert answer.header("allow")
    if method == "HEAD":
        assert not body
        return
    assert "\n" not in body.rstrip("\n"), "the Go client reads only the first line"
    document = json.loads(body)
    if dialect == NATIVE:
        assert set(document) == {"error", "code"}
        assert isinstance(document["error"], str)
        assert document["error"]
        found = document["code"]
    elif dialect == OPENAI:
        assert set(document) == {"error"}
        assert set(document["error"]) == {"message", "type", "param", "code"}
        found = document["error"]["code"]
    else:
        assert document["type"] == "error"
        assert {"type", "message", "code"} <= set(document["error"])
        assert document["error"]["type"] == ANTHROPIC_TYPES.get(status, "invalid_request_error")
        assert answer.header("request-id") == answer.header("x-request-id")
        found = document["error"]["code"]
    if code is not None:
        assert found == code
