"""Usage is told from the last bytes of an answer: exactly or as unknown, never from what a model says."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.observe.usage import LONGEST_END, REASONS, UNKNOWN, Usage, read_usage
from proxy.policy.routes import ROUTES, Route, match

from .answers import RECORDED, Recorded, documents

TAIL = 2048
"""What the relay keeps at least."""

NDJSON, SSE, JSON = b"application/x-ndjson", b"text/event-stream", b"application/json"

# What each recorded answer says of itself: tokens read, tokens written, why it ended. OpenAI's streams
# without include_usage tell no numbers: theirs are the chunks. A tool call is one chunk, whatever it cost.
EXPECTED: dict[str, tuple[int | None, int | None, str | None]] = {
    "anthropic-messages-stream": (15, 5, "max_tokens"),
    "anthropic-messages-whole": (15, 5, "max_tokens"),
    "chat-load": (0, 0, "load"),
    "chat-stream": (15, 5, "length"),
    "chat-stream-to-a-stop": (15, 14, "stop"),
    "chat-tool-call-with-metrics-stream": (64, 71, "stop"),
    "chat-tool-call-with-metrics-whole": (64, 71, "stop"),
    "chat-unload": (0, 0, "unload"),
    "chat-whole": (15, 5, "length"),
    "chat-whole-with-logprobs": (15, 3, "length"),
    "embed": (2, 0, None),
    "embeddings": (None, None, None),
    "generate-load": (0, 0, "load"),
    "generate-stream": (12, 5, "length"),
    "generate-stream-with-logprobs": (12, 3, "length"),
    "generate-stream-with-long-context": (760, 3, None),  # the reason stands 3 KB before the end
    "generate-text-of-metrics-stream": (10, 67, "stop"),
    "generate-text-of-metrics-whole": (10, 67, "stop"),
    "generate-unload": (0, 0, "unload"),
    "generate-whole": (12, 5, "length"),
    "generate-whole-with-logprobs": (12, 3, "length"),
    "openai-chat-stream": (None, 5, "length"),
    "openai-chat-stream-with-logprobs": (None, 3, "length"),
    "openai-chat-stream-with-usage": (15, 5, "length"),
    "openai-chat-text-of-usage-stream": (None, 36, "length"),
    "openai-chat-text-of-usage-whole": (11, 36, "length"),
    "openai-chat-tool-call-with-metrics-stream": (None, 1, "tool_calls"),
    "openai-chat-tool-call-with-metrics-whole": (64, 71, "tool_calls"),
    "openai-chat-whole": (15, 5, "length"),
    "openai-chat-whole-with-logprobs": (15, 3, "length"),
    "openai-completions-stream": (None, 5, "length"),
    "openai-completions-stream-with-usage": (12, 5, "length"),
    "openai-completions-whole": (12, 5, "length"),
    "openai-embeddings": (1, 0, None),
    "openai-embeddings-base64": (1, 0, None),
    "openai-responses-stream": (15, 5, None),
    "openai-responses-tool-call-with-metrics-stream": (64, 71, None),
    "openai-responses-tool-call-with-metrics-whole": (64, 71, None),
    "openai-responses-whole": (15, 5, None),
}


def route(path: str) -> Route:
    found = match("POST", path.encode())
    assert found is not None
    return found


METERED = [row for row in ROUTES if row.metered]


def usage_of(
    row: Route, content_type: bytes, body: bytes, kept: int = TAIL, lines: int | None = None
) -> Usage:
    tail = body[-kept:]
    return read_usage(
        row, content_type, tail, body.count(b"\n") if lines is None else lines, len(tail) == len(body)
    )


def recorded_usage(answer: Recorded, body: bytes, kept: int = TAIL) -> Usage:
    return usage_of(answer.route, answer.content_type, body, kept)


def pieces(path: str, body: bytes) -> int:
    """How many pieces of content came whole, by reading every line of a stream from its beginning."""
    return _pieces(path, body[: body.rfind(b"\n") + 1])


@cache
def _pieces(path: str, body: bytes) -> int:
    said = documents(body)
    if path in ("/api/generate", "/api/chat"):
        return sum(document.get("done") is False for document in said)
    if path == "/v1/responses":
        return sum(document["type"].endswith("text.delta") for document in said)
    if path == "/v1/messages":
        return sum(document["type"] == "content_block_delta" for document in said)
    choices = [choice for document in said for choice in document["choices"]]
    return sum(choice["finish_reason"] is None for choice in choices)


STREAMS = [name for name, answer in RECORDED.items() if answer.streamed]
# Their tool calls are told in events of their own, which are no text.
COUNTED = [name for name in STREAMS if not name.startswith("openai-responses-tool-call")]


def test_every_recorded_answer_is_in_the_table() -> None:
    assert set(EXPECTED) == set(RECORDED)
    assert {answer.route for answer in RECORDED.values()} == {
        row for row in METERED if row.path != "/v1/audio/transcriptions"
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_an_answer_costs_what_ollama_says(name: str) -> None:
    usage = recorded_usage(RECORDED[name], RECORDED[name].body)
    assert (usage.input_tokens, usage.output_tokens, usage.done_reason) == EXPECTED[name]
    assert usage.complete


@pytest.mark.parametrize("name", [name for name in EXPECTED if RECORDED[name].route.path.startswith("/api/")])
def test_times_are_seconds_of_what_ollama_says_in_nanoseconds(name: str) -> None:
    said = RECORDED[name].documents()[-1]
    usage = recorded_usage(RECORDED[name], RECORDED[name].body)
    for seconds, member in (
        (usage.load_seconds, "load_duration"),
        (usage.prompt_seconds, "prompt_eval_duration"),
        (usage.generation_seconds, "eval_duration"),
    ):
        assert seconds == (said[member] / 1e9 if member in said else None)


@pytest.mark.parametrize("name", EXPECTED)
def test_more_of_the_end_tells_the_same(name: str) -> None:
    answer = RECORDED[name]
    least = recorded_usage(answer, answer.body)
    for kept in (TAIL + 1, 3000, LONGEST_END, LONGEST_END + 1, 32 * 1024):
        usage = recorded_usage(answer, answer.body, kept)
        assert usage._replace(done_reason=None) == least._replace(done_reason=None)
        assert least.done_reason in (None, usage.done_reason)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_broke_off_anywhere_costs_the_pieces_that_came(name: str) -> None:
    answer = RECORDED[name]
    read, written, _ = EXPECTED[name]
    for length in range(len(answer.body.rstrip(b"\n")) + 1):
        cut = answer.body[:length]
        usage = recorded_usage(answer, cut)
        assert not usage.complete, length
        assert usage.input_tokens in (None, read)
        if usage.input_tokens is None and name in COUNTED:
            assert usage.output_tokens == pieces(answer.route.path, cut), cut[-300:]
        elif usage.input_tokens is not None:  # the numbers came, but not the end
            assert usage.output_tokens == written
    assert recorded_usage(answer, answer.body[: length + 1]).complete, "its last line, without the blank one"


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in STREAMS])
def test_an_answer_in_one_piece_that_broke_off_anywhere_is_unknown(name: str) -> None:
    answer = RECORDED[name]
    whole = answer.body.rstrip(b"\n")
    for length in range(len(whole)):
        assert recorded_usage(answer, whole[:length]) == UNKNOWN, length


@pytest.mark.parametrize("name", EXPECTED)
def test_however_little_is_left_of_the_end_no_number_is_wrong(name: str) -> None:
    answer = RECORDED[name]
    read, written, reason = EXPECTED[name]
    for kept in range(1, min(len(answer.body), TAIL)):
        usage = recorded_usage(answer, answer.body, kept)
        assert usage.input_tokens in (None, read)
        if usage.input_tokens is not None or not answer.streamed:
            assert usage.output_tokens in (None, written)
        else:  # by lines; short of half an event, some are taken for text
            assert usage.output_tokens is None or 0 <= usage.output_tokens <= answer.body.count(b"\n")
        if len(answer.body) > kept:
            assert usage.done_reason in (None, reason)


# -- what no recorded answer holds, in the shapes of Ollama's source


def line(**members: Any) -> bytes:
    """One object as Go writes it: no blanks, and the members in order."""
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace") + b"\n"


def event(kind: str, **members: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + line(**members) + b"\n"


METRICS = {
    "total_duration": 4_000_000_000,
    "load_duration": 1_500_000_000,
    "prompt_eval_count": 11,
    "prompt_eval_duration": 250_000_000,
    "eval_count": 7,
    "eval_duration": 1_000_000_000,
}
MEASURED = Usage(11, 7, 1.5, 0.25, 1.0, "stop", True)
LAST = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": ""}}
LAST_OF_GENERATE = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "response": ""}
GENERATE, CHAT = route("/api/generate"), route("/api/chat")
OPENAI, COMPLETIONS = route("/v1/chat/completions"), route("/v1/completions")
MESSAGES, RESPONSES = route("/v1/messages"), route("/v1/responses")


@pytest.mark.parametrize("size", [1, 300, 2_000, 20_000, 400_000])
@pytest.mark.parametrize("content_type", [NDJSON, JSON])
@pytest.mark.parametrize("kept", [TAIL, 32 * 1024])
def test_a_context_of_any_length_hides_no_metrics(size: int, content_type: bytes, kept: int) -> None:
    members = {**LAST_OF_GENERATE, "done": True, "done_reason": "stop", "context": list(range(size))}
    usage = usage_of(GENERATE, content_type, line(**members, **METRICS), kept)
    assert usage._replace(done_reason="stop") == MEASURED


def test_what_ollama_leaves_out_is_zero() -> None:
    kept = {name: value for name, value in METRICS.items() if name not in ("prompt_eval_count", "eval_count")}
    usage = usage_of(CHAT, NDJSON, line(**LAST, done=True, done_reason="stop", **kept))
    assert usage == MEASURED._replace(input_tokens=0, output_tokens=0)


def test_metrics_before_logprobs_count_where_they_can_be_seen() -> None:
    members = {**LAST_OF_GENERATE, "done": True, "done_reason": "stop", **METRICS}
    few, many = (
        line(**members, logprobs=[{"token": "a", "logprob": -1.5, "bytes": [97]}] * n) for n in (10, 1000)
    )
    assert usage_of(GENERATE, JSON, few) == MEASURED
    assert usage_of(GENERATE, JSON, many) == UNKNOWN


@pytest.mark.parametrize(
    "wrong", [-1, 1.5, 1e300, "7", None, True, [], {}, 10**9 + 1, 2**63, 10**400], ids=str
)
def test_a_number_that_is_none_is_unknown(wrong: object) -> None:
    for name, field in (
        ("prompt_eval_count", "input_tokens"),
        ("eval_count", "output_tokens"),
    ):
        body = line(**LAST, done=True, done_reason="stop", **{**METRICS, name: wrong})
        assert usage_of(CHAT, NDJSON, body) == MEASURED._replace(**{field: None})
    usage = {"prompt_tokens": wrong, "completion_tokens": 7, "total_tokens": 18}
    body = line(id="x", choices=[{"index": 0, "finish_reason": "stop"}], usage=usage)
    assert usage_of(OPENAI, JSON, body)[:2] == (None, 7)
    chunks = b"data: " + line(id="x", choices=[], usage=usage) + b"\ndata: [DONE]\n\n"
    assert usage_of(OPENAI, SSE, chunks)[:2] == (None, 7)
    usage = {"input_tokens": 11, "output_tokens": wrong}
    body = line(id="x", type="message", stop_reason="end_turn", usage=usage)
    assert usage_of(MESSAGES, JSON, body)[:2] == (11, None)
    body = event("response.completed", response={"id": "x", "usage": usage}, type="response.completed")
    assert usage_of(RESPONSES, SSE, body)[:2] == (11, None)


@pytest.mark.parametrize("wrong", [-1, 1.5, "7", None, True, 10**15 + 1, 10**400], ids=str)
def test_a_time_that_is_none_is_unknown(wrong: object) -> None:
    for name, field in (
        ("load_duration", "load_seconds"),
        ("prompt_eval_duration", "prompt_seconds"),
        ("eval_duration", "generation_seconds"),
    ):
        body = line(**LAST, done=True, done_reason="stop", **{**METRICS, name: wrong})
        assert usage_of(CHAT, NDJSON, body) == MEASURED._replace(**{field: None})


@pytest.mark.parametrize("reason", ["other", "", "stop ", "canary-answer", 5, None, ["stop"], {"a": 1}])
def test_a_reason_that_is_none_of_the_known_ones_is_unknown(reason: object) -> None:
    body = line(**LAST, done=True, done_reason=reason, **METRICS)
    assert usage_of(CHAT, NDJSON, body) == MEASURED._replace(done_reason=None)
    finish = b"data: " + line(choices=[{"finish_reason": reason}]) + b"\ndata: [DONE]\n\n"
    assert usage_of(OPENAI, SSE, finish).done_reason is None
    stop = {"input_tokens": 1, "output_tokens": 2}
    body = line(type="message", stop_reason=reason, usage=stop)
    assert usage_of(MESSAGES, JSON, body) == UNKNOWN._replace(input_tokens=1, output_tokens=2, complete=True)


ERROR = line(error="an error was encountered while running the model: unexpected EOF")


def test_an_error_within_a_200_is_no_end() -> None:
    said = line(**LAST, done=False) * 4
    assert usage_of(CHAT, NDJSON, said + ERROR) == UNKNOWN._replace(output_tokens=4)
    assert usage_of(CHAT, JSON, ERROR) == UNKNOWN


def test_a_line_behind_the_end_makes_it_no_end() -> None:
    end = line(**LAST, done=True, done_reason="stop", **METRICS)
    assert usage_of(CHAT, NDJSON, end + ERROR) == UNKNOWN._replace(output_tokens=1)
    assert not usage_of(CHAT, NDJSON, end + line(**LAST, done=False)).complete


@pytest.mark.parametrize("row", METERED, ids=lambda row: row.path)
@pytest.mark.parametrize(
    "content_type", [b"", b"text/html", b"text/plain; charset=utf-8", b"application/xml"]
)
def test_an_answer_of_another_kind_is_unknown(row: Route, content_type: bytes) -> None:
    for answer in RECORDED.values():
        assert usage_of(row, content_type, answer.body) == UNKNOWN


@pytest.mark.parametrize("row", [row for row in ROUTES if not row.metered], ids=lambda row: row.path)
def test_routes_that_cost_no_tokens_have_no_usage(row: Route) -> None:
    for answer in RECORDED.values():
        assert usage_of(row, answer.content_type, answer.body) == UNKNOWN


def test_a_transcription_tells_nothing_but_its_end() -> None:
    row = route("/v1/audio/transcriptions")
    text = line(text='"usage":{"prompt_tokens":5}')
    assert usage_of(row, JSON, text) == UNKNOWN._replace(complete=True)
    assert all(usage_of(row, JSON, text[:length]) == UNKNOWN for length in range(len(text)))


# A model that thinks, then speaks, then calls a tool; by middleware/anthropic.go and openai/responses.go.

THOUGHTS, WORDS = 4, 6


def anthropic_stream() -> list[bytes]:
    def block(index: int, start: dict[str, Any], deltas: list[dict[str, Any]]) -> list[bytes]:
        return [
            event("content_block_start", type="content_block_start", index=index, content_block=start),
            *(
                event("content_block_delta", type="content_block_delta", index=index, delta=delta)
                for delta in deltas
            ),
            event("content_block_stop", type="content_block_stop", index=index),
        ]

    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    usage = {"input_tokens": 30, "output_tokens": 0}
    return [
        event("message_start", type="message_start", message={**message, "usage": usage}),
        *block(
            0,
            {"type": "thinking", "thinking": ""},
            [{"type": "thinking_delta", "thinking": "hm"}] * THOUGHTS,
        ),
        *block(1, {"type": "text", "text": ""}, [{"type": "text_delta", "text": "so"}] * WORDS),
        *block(
            2,
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"usage":{"input_tokens":5}}'}],
        ),
        event(
            "message_delta",
            type="message_delta",
            delta={"stop_reason": "tool_use"},
            usage={"input_tokens": 31, "output_tokens": 19},
        ),
        event("message_stop", type="message_stop"),
    ]


def responses_stream(end: str = "response.completed") -> list[bytes]:
    item = {"item_id": "msg_1", "output_index": 1}
    begun = {"response": {"created_at": 1, "id": "resp_1", "model": "m", "usage": None}}
    usage = {"input_tokens": 31, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 19}
    thought = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", begun),
        ("response.in_progress", begun),
        ("response.output_item.added", {"item": {"id": "rs_1", "type": "reasoning"}, "output_index": 0}),
        *[("response.reasoning_summary_text.delta", {"delta": "hm", **thought})] * THOUGHTS,
        ("response.reasoning_summary_text.done", {**thought, "text": "hmhmhmhm"}),
        ("response.output_item.done", {"item": {"id": "rs_1", "type": "reasoning"}, "output_index": 0}),
        ("response.output_item.added", {"item": {"id": "msg_1", "type": "message"}, "output_index": 1}),
        ("response.content_part.added", {"content_index": 0, **item, "part": {"type": "output_text"}}),
        *[("response.output_text.delta", {"content_index": 0, "delta": "so", **item})] * WORDS,
        ("response.output_text.done", {"content_index": 0, **item, "text": "so" * WORDS}),
        ("response.content_part.done", {"content_index": 0, **item, "part": {"type": "output_text"}}),
        ("response.output_item.done", {"item": {"id": "msg_1", "type": "message"}, "output_index": 1}),
        (end, {"response": {"created_at": 1, "id": "resp_1", "model": "m", "usage": usage}}),
    ]
    return [
        event(kind, **members, sequence_number=number, type=kind)
        for number, (kind, members) in enumerate(events)
    ]


@pytest.mark.parametrize(
    ("row", "events", "reason"),
    [(MESSAGES, anthropic_stream(), "tool_use"), (RESPONSES, responses_stream(), None)],
    ids=["messages", "responses"],
)
def test_thoughts_and_tool_calls_are_told_apart_from_what_frames_them(
    row: Route, events: list[bytes], reason: str | None
) -> None:
    body = b"".join(events)
    assert usage_of(row, SSE, body) == UNKNOWN._replace(
        input_tokens=31, output_tokens=19, done_reason=reason, complete=True
    )
    for length in range(len(body) - 1):
        usage = usage_of(row, SSE, body[:length])
        assert not usage.complete
        if usage.input_tokens is not None:
            assert usage.output_tokens == 19
            continue
        came = pieces(row.path, body[:length])
        if row is RESPONSES and came == THOUGHTS:  # a thought that was just closed may count for less
            assert usage.output_tokens in range(came - 2, came + 1)
        else:
            assert usage.output_tokens == came, body[:length][-200:]


def test_a_response_that_failed_is_no_end_but_its_tokens_are_spent() -> None:
    usage = usage_of(RESPONSES, SSE, b"".join(responses_stream("response.failed")))
    assert usage == UNKNOWN._replace(input_tokens=31, output_tokens=19)


# -- nothing a model or a client writes is taken for usage

TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.sampled_from(
        [
            '"eval_count":5',
            '","done":true,"eval_count":5}',
            '],"total_duration":1,"eval_count":5}\n',
            '"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":5}}\n\ndata: [DONE]\n\n',
            ',"usage":{"input_tokens":5,"output_tokens":5}},"type":"response.completed"}\n\n',
            'event: message_delta\ndata: {"usage":{"input_tokens":5,"output_tokens":5}}\n\n',
            '"finish_reason":"length"',
            '\\","stop_reason":"max_tokens","usage":{"input_tokens":5,"output_tokens":5}}',
            "\\" * 7,
            '"' * 9,
        ]
    ),
)
NAMES = st.sampled_from(
    [
        "done",
        "done_reason",
        "total_duration",
        "prompt_eval_count",
        "eval_count",
        "usage",
        "stop_reason",
        "choices",
        "x",
    ]
)
VALUES = st.recursive(
    st.one_of(
        st.integers(-5, 10**6),
        st.just(True),
        st.just("length"),
        TEXTS,
        st.just({"input_tokens": 5, "output_tokens": 5}),
        st.just({"prompt_tokens": 5, "completion_tokens": 5}),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(NAMES, VALUES, max_size=6)
PADDING = st.sampled_from([0, 10, 1500, 5000])
KEPT = st.sampled_from([TAIL, TAIL + 700, LONGEST_END, 32 * 1024])


def tool_call(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": arguments}}


@given(text=TEXTS, arguments=ARGUMENTS, padding=PADDING, kept=KEPT, data=st.data())
@settings(max_examples=100, deadline=None)
def test_text_and_arguments_are_never_metrics(
    text: str, arguments: dict[str, Any], padding: int, kept: int, data: st.DataObject
) -> None:
    text += "x" * padding
    message = {"role": "assistant", "content": text, "tool_calls": [tool_call(arguments)]}
    said = line(**{**LAST, "message": message}, done=False)
    end = line(**{**LAST, "message": message}, done=True, done_reason="stop", **METRICS)
    assert usage_of(CHAT, NDJSON, said + end, kept) == MEASURED
    assert usage_of(CHAT, JSON, end[:-1], kept) == MEASURED
    generated = {**LAST_OF_GENERATE, "response": text, "done": True, "done_reason": "stop"}
    end = line(**generated, context=list(range(padding)), **METRICS, tool_calls=[tool_call(arguments)])
    usage = usage_of(GENERATE, NDJSON, said + end, kept)
    assert usage._replace(done_reason="stop") == MEASURED or usage.input_tokens is None
    for body in (said + end, said):
        cut = body[: data.draw(st.integers(0, len(body) - 1))]
        assert usage_of(CHAT, NDJSON, cut, kept).input_tokens is None
        assert usage_of(GENERATE, NDJSON, cut, kept).input_tokens is None


@given(text=TEXTS, arguments=ARGUMENTS, padding=PADDING, kept=KEPT, data=st.data())
@settings(max_examples=100, deadline=None)
def test_text_and_arguments_are_never_usage(
    text: str, arguments: dict[str, Any], padding: int, kept: int, data: st.DataObject
) -> None:
    text += "x" * padding
    known = UNKNOWN._replace(input_tokens=31, output_tokens=19, complete=True)
    # OpenAI's arguments are text.
    calls = [{"id": "c", "function": {"name": text, "arguments": json.dumps(arguments)}}]
    usage = {"prompt_tokens": 31, "completion_tokens": 19, "total_tokens": 50}
    choice = {"index": 0, "message": {"content": text, "tool_calls": calls}, "finish_reason": "stop"}
    body = line(id="x", model="m", choices=[choice], usage=usage)
    assert usage_of(OPENAI, JSON, body, kept) == known._replace(done_reason="stop")
    assert usage_of(OPENAI, JSON, body[:-2], kept) == UNKNOWN
    said = b"data: " + line(id="x", choices=[{**choice, "finish_reason": None}]) + b"\n"
    stop = b"data: " + line(id="x", choices=[{"delta": {}, "finish_reason": "stop"}]) + b"\n"
    last = b"data: " + line(id="x", choices=[], model="m", usage=usage) + b"\ndata: [DONE]\n\n"
    assert usage_of(OPENAI, SSE, said + stop + last, kept) == known._replace(done_reason="stop")
    assert usage_of(OPENAI, SSE, said * 2 + stop + b"data: [DONE]\n\n", kept) == UNKNOWN._replace(
        output_tokens=2, done_reason="stop", complete=True
    )
    assert usage_of(OPENAI, SSE, (said * 2)[: -data.draw(st.integers(2, len(said)))], kept)[:2] == (None, 1)

    # Anthropic's are objects, and come first.
    content = [{"type": "text", "text": text}, {"type": "tool_use", "id": "c", "input": arguments}]
    usage = {"input_tokens": 31, "output_tokens": 19}
    body = line(type="message", model="m", content=content, stop_reason="tool_use", usage=usage)
    assert usage_of(MESSAGES, JSON, body, kept) == known._replace(done_reason="tool_use")
    assert usage_of(MESSAGES, JSON, line(type="message", content=content, usage=usage), kept) == known
    assert usage_of(MESSAGES, JSON, body[: -data.draw(st.integers(1, len(body)))], kept) == UNKNOWN

    # What clients send as tools and format comes back to them in a response, before and behind the text.
    tools = [{"name": text, "parameters": arguments}]
    body = line(id="x", output=[{"text": text}], tools=tools, usage=usage, metadata={}, user=None)
    assert usage_of(RESPONSES, JSON, body, kept) == known
    response = {"id": "x", "output": [{"text": text}], "tools": tools, "truncation": text[:900]}
    kind = {"sequence_number": 9, "type": "response.completed"}
    body = event("response.completed", response={**response, "usage": usage}, **kind)
    assert usage_of(RESPONSES, SSE, body, kept) == known
    cut = body[: -data.draw(st.integers(2, len(body)))]
    assert usage_of(RESPONSES, SSE, cut, kept).input_tokens is None


# -- nothing breaks it

ENDS = [answer.body[-3000:] for answer in RECORDED.values()]
CONTENT_TYPES = st.sampled_from([NDJSON, SSE, JSON, b"application/json; charset=utf-8", b"", b"text/plain"])


def check_sound(usage: Usage) -> None:
    for number in usage[:2]:
        assert number is None or (type(number) is int and 0 <= number <= 10**9)
    for seconds in usage[2:5]:
        assert seconds is None or 0.0 <= seconds <= 10**6
    assert usage.done_reason is None or usage.done_reason in REASONS
    assert type(usage.complete) is bool


@given(
    row=st.sampled_from(METERED),
    content_type=CONTENT_TYPES,
    tail=st.one_of(st.binary(max_size=400), st.lists(st.sampled_from(ENDS), max_size=2).map(b"".join)),
    lines=st.integers(0, 10**6),
    whole=st.booleans(),
)
@example(CHAT, NDJSON, b"[" * 30_000 + b',"done":true}\n', 1, False)
@example(CHAT, JSON, b'{"a":' * 600 + b"1" + b"}" * 600, 0, True)
@example(CHAT, JSON, b"[" * 4000, 0, True)
@example(CHAT, NDJSON, b',"done":true,"x":' + b"[" * 2000 + b"}\n", 1, False)
@example(CHAT, NDJSON, b',"done":true,"eval_count":' + b"9" * 4000 + b"}\n", 1, False)
@example(CHAT, NDJSON, b',"done":true,"eval_count":NaN,"load_duration":Infinity}\n', 1, False)
@example(CHAT, NDJSON, b',"done":true,"done_reason":"\xff\xfe"}\n', 1, False)
@example(MESSAGES, SSE, b'event: message_delta\ndata: {"delta":7,"usage":[1]}\n\n', 3, False)
@example(RESPONSES, SSE, b',"usage":{}}}\n\n', 3, False)
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_or_give_nonsense(
    row: Route, content_type: bytes, tail: bytes, lines: int, whole: bool
) -> None:
    check_sound(read_usage(row, content_type, tail, lines, whole))


@given(
    name=st.sampled_from(sorted(RECORDED)),
    changes=st.lists(
        st.tuples(st.integers(0, 2500), st.integers(0, 20), st.binary(max_size=12)), min_size=1, max_size=4
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_damage_to_a_real_answer_raises_or_gives_nonsense(
    name: str, changes: list[tuple[int, int, bytes]]
) -> None:
    answer = RECORDED[name]
    body = answer.body
    for back, gone, new in changes:
        at = max(0, len(body) - back)
        body = body[:at] + new + body[at + gone :]
    check_sound(recorded_usage(answer, body))


# -- nothing makes it slow


def quickest(*arguments: Any) -> float:
    """Seconds of processor time, the least of some turns: others share the machine."""
    turns = []
    for _ in range(8):
        begun = time.thread_time()
        for _ in range(4):
            read_usage(*arguments)
        turns.append((time.thread_time() - begun) / 4)
    return min(turns)


FILLINGS = [
    b"1,",
    b"1e9,",
    b"[",
    b'"',
    b"\\",
    b"\n",
    b'{"a":',
    b'],"total_duration":',
    b',"done":true',
    b'"",',
]
OPENINGS = [
    b'],"total_duration":1,"x":[',
    b',"done":true,"x":[',
    b',"usage":{"x":[',
    b'event: message_delta\ndata: {"x":[',
]
CLOSINGS = {JSON: b"]}\n", NDJSON: b"]}\n", SSE: b"]}\n\n"}


@pytest.mark.parametrize("content_type", CLOSINGS)
@pytest.mark.parametrize("row", [CHAT, GENERATE, OPENAI, MESSAGES, RESPONSES], ids=lambda row: row.path)
def test_32_kib_of_anything_are_read_in_a_fraction_of_a_millisecond(row: Route, content_type: bytes) -> None:
    close = CLOSINGS[content_type]
    for filling in FILLINGS:
        for opening in OPENINGS:
            for read in (LONGEST_END, 32768):
                rest = (filling * read)[: read - len(opening) - len(close)]
                tail = (filling * 32768)[: 32768 - read] + opening + rest + close
                assert len(tail) == 32768
                assert quickest(row, content_type, tail, 5, False) < 0.0007, (filling, opening)


@pytest.mark.parametrize(
    "name", ["chat-stream", "openai-chat-stream-with-usage", "anthropic-messages-stream"]
)
def test_an_ordinary_end_is_read_in_microseconds(name: str) -> None:
    answer = RECORDED[name]
    assert quickest(answer.route, answer.content_type, answer.body[-TAIL:], 30, False) < 0.00005
