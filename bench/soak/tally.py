"""What an answer cost, as a client reads it: from the whole body, by JSON, dialect by dialect.

Written apart from the proxy's own reading, so that each can be held against the other.
"""

from __future__ import annotations

import json
from typing import Any

from bench.soak.client import KEPT, Answer

Tokens = tuple[int | None, int | None]

_PIECES = {
    "/api/chat": b'"done":false',
    "/api/generate": b'"done":false',
    "/v1/chat/completions": b'"finish_reason":null',
    "/v1/completions": b'"finish_reason":null',
    "/v1/messages": b"event: content_block_delta",
    "/v1/responses": b"event: response.output_text.delta",
}
"""What stands once in each piece of a streamed answer."""


def tokens(route: str, answer: Answer) -> Tokens | None:
    """Input and output tokens of an answer, each None where it does not tell; None of routes without any."""
    if answer.got > KEPT:
        return (_number(answer.tail, b'"prompt_eval_count":'), 0) if route == "/api/embed" else None
    streamed = answer.fields.get("content-type", "").startswith(("text/event-stream", "application/x-ndjson"))
    nothing = not answer.whole and (not answer.got or answer.body.startswith(b'{"error":'))
    if answer.status != 200 or nothing or not (streamed or answer.whole):
        return None, None
    if route == "/api/embed":
        return _member(answer.body, "prompt_eval_count"), 0
    if route == "/v1/embeddings":
        return _member(_object(answer.body).get("usage"), "prompt_tokens"), 0
    if route == "/api/embeddings":
        return None, None
    if route not in _PIECES:
        return None
    told = _told(route, answer.body, streamed)
    return told if told is not None else (None, answer.body.count(_PIECES[route]))


def _told(route: str, body: bytes, streamed: bool) -> Tokens | None:
    """What the end of an answer says; None where it has none, or says nothing."""
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n")]
    objects = [_object(line) for line in lines if line.startswith(b"{")]
    if route.startswith("/api/"):
        last = objects[-1] if objects else {}
        if last.get("done") is not True:
            return None
        return last.get("prompt_eval_count", 0), last.get("eval_count", 0)
    if route == "/v1/responses" and streamed:
        objects = [item["response"] for item in objects if item.get("type") == "response.completed"]
    if route == "/v1/messages" and streamed:
        objects = [item for item in objects if item.get("type") == "message_delta"]
    used = objects[-1].get("usage") if objects else None
    if not used or (route.endswith("completions") and streamed and objects[-1].get("choices") != []):
        return None
    if route.endswith("completions"):
        return used["prompt_tokens"], used["completion_tokens"]
    return used["input_tokens"], used["output_tokens"]


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _member(value: Any, name: str) -> int | None:
    if isinstance(value, bytes):
        value = _object(value)
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, int) else None


def _number(tail: bytes, name: bytes) -> int | None:
    _, found, rest = tail.rpartition(name)
    digits = rest[: len(rest) - len(rest.lstrip(b"0123456789"))]
    return int(digits) if found and digits else None
