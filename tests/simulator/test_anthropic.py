"""Anthropic's route: exact shapes, and anthropic's Python client."""

from __future__ import annotations

import json

import anthropic
import httpx
import pytest
from anthropic.types import MessageParam

from proxy.simulator.text import ANSWER, TOKENS

HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]


def test_a_message_comes_whole_by_default(http: httpx.Client) -> None:
    request = {"model": "simulator", "messages": HI, "max_tokens": 3}
    answer = http.post("/v1/messages", json=request)
    assert list(answer.json()) == ["id", "type", "role", "model", "content", "stop_reason", "usage"]
    assert answer.json()["content"] == [{"type": "text", "text": "Hello! This is"}]
    assert answer.json()["stop_reason"] == "max_tokens"
    assert list(answer.json()["usage"]) == ["input_tokens", "output_tokens"]


def test_a_message_stream_counts_in_its_delta_and_then_stops(http: httpx.Client) -> None:
    request = {"model": "simulator", "messages": HI, "max_tokens": 2, "stream": True}
    answer = http.post("/v1/messages", json=request)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["connection"] == "keep-alive"
    named = [event.split("\n") for event in answer.text.rstrip("\n").split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in named]
    told = [json.loads(data.removeprefix("data: ")) for _, data in named]
    assert names == [event["type"] for event in told]
    assert names == [
        *("message_start", "content_block_start", "content_block_delta", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert told[-2]["delta"] == {"stop_reason": "max_tokens"}
    assert told[-2]["usage"]["output_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ("", 400, "invalid_request_error", "EOF"),
        ("{}", 400, "invalid_request_error", "model is required"),
        ('{"model":"x"}', 400, "invalid_request_error", "max_tokens is required and must be positive"),
        ('{"model":"x","max_tokens":1}', 400, "invalid_request_error", "messages is required"),
        (
            '{"model":"x","max_tokens":1,"messages":[{"role":"user","content":"Hi"}]}',
            404,
            "not_found_error",
            "model 'x' not found",
        ),
    ],
)
def test_errors_are_in_the_dialect_of_anthropic(
    http: httpx.Client, body: str, status: int, kind: str, message: str
) -> None:
    answer = http.post("/v1/messages", content=body)
    assert list(answer.json()) == ["type", "error", "request_id"]
    assert (answer.status_code, answer.json()["type"]) == (status, "error")
    assert answer.json()["error"] == {"type": kind, "message": message}


def test_the_anthropic_client_reads_it_whole_and_as_a_stream(anthropic_client: anthropic.Anthropic) -> None:
    whole = anthropic_client.messages.create(model="simulator", messages=HI, max_tokens=1000)
    assert [block.text for block in whole.content if block.type == "text"] == [ANSWER]
    assert (whole.stop_reason, whole.usage.output_tokens) == ("end_turn", len(TOKENS))
    with anthropic_client.messages.stream(model="simulator", messages=HI, max_tokens=1000) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert pieces == list(TOKENS)
    assert final.usage.output_tokens == len(TOKENS)
    with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found"):
        anthropic_client.messages.create(model="nope", messages=HI, max_tokens=1)
