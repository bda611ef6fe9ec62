"""JSON as Ollama writes it (Go's encoding/json, gin and net/http)."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

from starlette.responses import Response

# net/http sends a short body with Content-Length and a longer one chunked.
_LONGEST_WITH_LENGTH = 2048

_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def encode(value: object, *, sort_keys: bool = False) -> bytes:
    """Compact JSON without a line end; `<`, `>` and `&` escaped, as Go does."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
    return text.translate(_ESCAPES).encode("utf-8", "replace")


def timestamp(nanoseconds: int | None = None) -> str:
    """RFC 3339 in UTC with the nanoseconds of Go's time.Time (trailing zeros dropped); default now."""
    seconds, fraction = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 1_000_000_000)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{digits}Z"


def json_response(value: object, status: int = 200) -> Response:
    """What gin's c.JSON sends: all of /api, and the first errors of /v1."""
    return _response(encode(value), status, "application/json; charset=utf-8")


def json_line_response(value: object, status: int = 200) -> Response:
    """What Ollama's /v1 middleware sends: no charset, and a line end."""
    return _response(encode(value) + b"\n", status, "application/json")


def _response(body: bytes, status: int, content_type: str) -> Response:
    response = Response(body, status, headers={"content-type": content_type})
    if len(body) > _LONGEST_WITH_LENGTH:
        del response.headers["content-length"]
    return response
