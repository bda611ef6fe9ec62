"""What an answer cost, read from its last bytes: tokens, durations, and why it ended. Pure.

Ollama tells its metrics at the end of an answer. The beginning of its last object may be far away (the
``context`` of /api/generate, embeddings, long texts), so an object is never read from its beginning: a
member is looked for that stands on the outermost level behind everything a model can write, and from there
to its end the object has to be JSON. Only a member of the outermost level closes with the object itself, so
neither text (its quotes are escaped) nor the arguments of a tool call are taken for metrics.

What cannot be read is None. Of a stream that did not come to its end, and of OpenAI's streams without
``include_usage``, the written tokens are the chunks of content, counted by line ends: Ollama sends a chunk
for each token, but where a parser holds text back.

Source: Ollama's api/types.go, openai/openai.go, openai/responses.go, anthropic/anthropic.go, and the writers
in middleware/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from proxy.policy.routes import Route

LONGEST_END = 4 * 1024
"""Bytes of an end that are looked at. The worst JSON of this length takes Python 0.2 ms, an end that Ollama
writes some microseconds."""

MOST_TOKENS = 10**9
"""A number of tokens above this is none."""

MOST_NANOSECONDS = 10**15
"""And so is a duration above this one, 11 days."""

REASONS = frozenset(
    [
        *("stop", "length", "load", "unload"),  # Ollama
        *("tool_calls", "function_call", "content_filter"),  # OpenAI
        *("end_turn", "max_tokens", "stop_sequence", "tool_use"),  # Anthropic
    ]
)
"""Why answers end; no other text becomes a ``done_reason``."""


class Usage(NamedTuple):
    """None is unknown. ``complete`` says that the answer has the end that its dialect gives it."""

    input_tokens: int | None
    output_tokens: int | None
    load_seconds: float | None
    prompt_seconds: float | None
    generation_seconds: float | None
    done_reason: str | None
    complete: bool


UNKNOWN = Usage(None, None, None, None, None, None, False)


def read_usage(route: Route, content_type: bytes, tail: bytes, lines: int, whole: bool) -> Usage:
    """The usage of an answer with status 200.

    ``tail`` are the last bytes of its body, ``lines`` is how many line ends the whole body has, and ``whole``
    says that ``tail`` is all of it.
    """
    readers = _READERS.get(route.path)
    if readers is None:
        return UNKNOWN
    if len(tail) > LONGEST_END:
        tail, whole = tail[-LONGEST_END:], False
    if content_type.startswith(b"application/json"):
        return readers.whole(tail, whole)
    if readers.stream is None or not content_type.startswith(readers.stream_type):
        return UNKNOWN
    # An event has come with the end of its data; the blank line behind it says nothing more.
    return readers.stream(tail[:-1] if tail.endswith(b"\n\n") else tail, lines)


# -- /api/generate and /api/chat


def _native_object(tail: bytes, whole: bool) -> Usage:
    # No line end follows an object that does not stream, but one that is whole is proof of its own end.
    members = _object(tail) if whole else _native_end(tail)
    return UNKNOWN if members is None else _native_usage(members)


def _native_stream(tail: bytes, lines: int) -> Usage:
    if tail.endswith(b"}\n"):
        members = _native_end(tail)
        if members is not None:
            return _native_usage(members)
        if tail.startswith(b'{"error":', tail.rfind(b"\n", 0, -1) + 1):
            lines -= 1
    return _by_chunks(lines)


def _native_end(tail: bytes) -> dict[str, Any] | None:
    """The members from ``done``, or from the metrics where a long array stands between the two."""
    return _members_from(b',"done":true', tail) or _members_from(b'],"total_duration":', tail)


def _native_usage(members: dict[str, Any]) -> Usage:
    # An error is an object too, and what follows a long array has no ``done`` any more.
    if members.get("done", "total_duration" in members) is not True:
        return UNKNOWN
    return Usage(
        _tokens(members.get("prompt_eval_count", 0)),  # Go leaves out what is zero
        _tokens(members.get("eval_count", 0)),
        _seconds(members.get("load_duration")),
        _seconds(members.get("prompt_eval_duration")),
        _seconds(members.get("eval_duration")),
        _reason(members.get("done_reason")),
        True,
    )


# -- /v1/chat/completions and /v1/completions

_DONE = b"\ndata: [DONE]\n"
_FINISH = b'"finish_reason":"'


def _openai_object(tail: bytes, whole: bool) -> Usage:
    members = _encoded_end(tail, b',"usage":{')
    return UNKNOWN if members is None else _openai_usage(members, _finish_reason(tail), True)


def _openai_stream(tail: bytes, lines: int) -> Usage:
    complete = tail.endswith(_DONE)
    end = len(tail) - len(_DONE) + 1 if complete else tail.rfind(b"\n") + 1
    reason = _finish_reason(tail)
    # With include_usage the last chunk has no choices; those before it may carry zeros.
    members = _members_from(b'"choices":[],', tail[tail.rfind(b"\ndata: ", 0, end) + 1 : end])
    if members is not None:
        return _openai_usage(members, reason, complete)
    finished = complete or tail.rfind(_FINISH, 0, end) >= 0
    chunks = _by_chunks((lines + 1) // 2 - complete - finished)
    return chunks._replace(done_reason=reason, complete=complete)


def _openai_usage(members: dict[str, Any], reason: str | None, complete: bool) -> Usage:
    usage = _inner(members, "usage")
    read, written = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
    return UNKNOWN._replace(input_tokens=read, output_tokens=written, done_reason=reason, complete=complete)


def _finish_reason(tail: bytes) -> str | None:
    """The last one. No object of these answers can hold a key that is not Ollama's."""
    start = tail.rfind(_FINISH)
    if start < 0:
        return None
    start += len(_FINISH)
    return _reason(tail[start : max(start, tail.find(b'"', start))].decode("ascii", "replace"))


# -- /v1/responses


def _responses_object(tail: bytes, whole: bool) -> Usage:
    members = _encoded_end(tail, b',"usage":{')
    return UNKNOWN if members is None else _token_usage(members, None, True)


def _responses_stream(tail: bytes, lines: int) -> Usage:
    if tail.endswith(b"}\n"):
        members = _members_from(b',"usage":{', tail, b'{"response":{')
        if members is not None:
            complete = members.get("type") == "response.completed"  # a failed one tells its usage too
            return _token_usage(_inner(members, "response"), None, complete)
    return _by_chunks((lines + 1) // 3 - _no_deltas(tail))


_OUTPUT = re.compile(rb'"output_index":(\d{1,9})')
_EVENT = re.compile(rb'"type":"response\.([a-z_.]{1,60})"\}\n')
_FRAMES = {
    b"created": 1,
    b"in_progress": 2,
    b"output_item.added": 3,
    b"reasoning_summary_text.delta": 3,
    b"output_text.done": 5,
    b"content_part.done": 6,
    b"output_item.done": 7,
}


def _no_deltas(tail: bytes) -> int:
    """How many events of a broken stream are not pieces of text, by the last one.

    Four stand before the text: response.created, response.in_progress, output_item.added and
    content_part.added. A thought has no part, and two events close it. Right where the last event is a piece.
    """
    event = _last(_EVENT, b'"type":"response.', tail)
    output = _last(_OUTPUT, b'"output_index":', tail)
    frames = 4 if event is None else _FRAMES.get(event[1], 4)
    return frames + (3 if output is not None and int(output[1]) else 0)


# -- /v1/messages

_DELTA = b"event: message_delta\ndata: "
_STOP = b"\n\nevent: message_stop\ndata: "
_BLOCK = re.compile(rb'data: \{"type":"content_block_(start|delta|stop)","index":(\d{1,9})')


def _messages_object(tail: bytes, whole: bool) -> Usage:
    members = _encoded_end(tail, b',"stop_reason":"') or _encoded_end(tail, b',"usage":{')
    return UNKNOWN if members is None else _token_usage(members, members.get("stop_reason"), True)


def _messages_stream(tail: bytes, lines: int) -> Usage:
    start = tail.rfind(_DELTA)
    end = tail.find(b"\n", start + len(_DELTA)) if start >= 0 else -1
    if end < 0:
        return _by_chunks((lines + 1) // 3 - _no_pieces(tail))
    members = _object(tail[start + len(_DELTA) : end])
    complete = tail.startswith(_STOP, end) and tail.endswith(b"}\n")
    if members is None:
        return UNKNOWN._replace(complete=complete)
    return _token_usage(members, _inner(members, "delta").get("stop_reason"), complete)


def _no_pieces(tail: bytes) -> int:
    """How many events of a broken stream are not pieces of content, by the last one.

    message_start, then the start of each block, the stop of each but the last, and perhaps that of the last.
    """
    block = _last(_BLOCK, b'data: {"type":"content_block_', tail)
    if block is None:
        return 2
    return 2 + 2 * int(block[2]) + (block[1] == b"stop")


# -- embeddings and transcriptions


def _embed_object(tail: bytes, whole: bool) -> Usage:
    members = _members_from(b'],"total_duration":', tail)
    if members is None:
        return UNKNOWN
    return _native_usage(members)._replace(output_tokens=0)


def _embeddings_object(tail: bytes, whole: bool) -> Usage:
    members = _encoded_end(tail, b',"usage":{')
    if members is None:
        return UNKNOWN
    return _openai_usage(members, None, True)._replace(output_tokens=0)


def _untold_object(tail: bytes, whole: bool) -> Usage:
    return UNKNOWN._replace(complete=tail.endswith((b"]}", b'"}\n')))


# -- what they share


def _members_from(marker: bytes, tail: bytes, opening: bytes = b"{") -> dict[str, Any] | None:
    """The members of the object that ends ``tail``, from the last ``marker`` on; None where it has none.

    ``marker`` begins behind the character that stands before a member's name, ``opening`` stands for what
    is left out before it.
    """
    start = tail.rfind(marker)
    return _object(opening + tail[tail.index(b'"', start) :]) if start >= 0 else None


def _encoded_end(tail: bytes, marker: bytes) -> dict[str, Any] | None:
    """The same of an object that Go's encoder wrote, which ends it with a line end."""
    return _members_from(marker, tail) if tail.endswith(b"}\n") else None


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    return found if type(found) is dict else None


def _inner(members: dict[str, Any], name: str) -> dict[str, Any]:
    found = members.get(name)
    return found if type(found) is dict else {}


def _token_usage(members: dict[str, Any], reason: object, complete: bool) -> Usage:
    usage = _inner(members, "usage")
    read, written = _tokens(usage.get("input_tokens")), _tokens(usage.get("output_tokens"))
    return Usage(read, written, None, None, None, _reason(reason), complete)


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _seconds(value: object) -> float | None:
    return value / 1e9 if type(value) is int and 0 <= value <= MOST_NANOSECONDS else None


def _reason(value: object) -> str | None:
    return value if type(value) is str and value in REASONS else None


def _by_chunks(chunks: int) -> Usage:
    return UNKNOWN._replace(output_tokens=max(0, chunks))


def _last(pattern: re.Pattern[bytes], start: bytes, tail: bytes) -> re.Match[bytes] | None:
    """What ``pattern`` finds at the last ``start`` on a line that is whole."""
    end = tail.rfind(b"\n") + 1
    found = tail.rfind(start, 0, end)
    return pattern.match(tail, found, end) if found >= 0 else None


class _Readers(NamedTuple):
    """``whole`` reads an answer in one piece, ``stream`` one in pieces of ``stream_type``."""

    whole: Callable[[bytes, bool], Usage]
    stream: Callable[[bytes, int], Usage] | None = None
    stream_type: bytes = b"text/event-stream"


_NATIVE = _Readers(_native_object, _native_stream, b"application/x-ndjson")
_OPENAI = _Readers(_openai_object, _openai_stream)

_READERS = {
    "/api/generate": _NATIVE,
    "/api/chat": _NATIVE,
    "/api/embed": _Readers(_embed_object),
    "/api/embeddings": _Readers(_untold_object),
    "/v1/chat/completions": _OPENAI,
    "/v1/completions": _OPENAI,
    "/v1/responses": _Readers(_responses_object, _responses_stream),
    "/v1/messages": _Readers(_messages_object, _messages_stream),
    "/v1/embeddings": _Readers(_embeddings_object),
    "/v1/audio/transcriptions": _Readers(_untold_object),
}
