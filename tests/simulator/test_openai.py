"""The OpenAI routes: exact shapes, and openai's Python client."""

from __future__ import annotations

import base64
import json
import struct

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from proxy.simulator.text import ANSWER, TOKENS

HI: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hi"}]


def events(answer: httpx.Response) -> list[str]:
    """The data of each event."""
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.endswith("\n\n")
    return [event.rpartition("data: ")[2] for event in answer.text.rstrip("\n").split("\n\n")]


def test_chat_completions_answer_whole_by_default(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json={"model": "simulator", "messages": HI})
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.endswith("}\n")
    members = "id object created model system_fingerprint choices usage"
    assert list(answer.json()) == members.split()
    message = {"role": "assistant", "content": ANSWER}
    assert answer.json()["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert answer.json()["usage"]["completion_tokens"] == len(TOKENS)


def test_a_chat_stream_ends_with_the_reason_and_done_and_has_no_usage_unasked(http: httpx.Client) -> None:
    request = {"model": "simulator", "messages": HI, "stream": True, "max_tokens": 2}
    *pieces, last, done = events(http.post("/v1/chat/completions", json=request))
    assert done == "[DONE]"
    assert [json.loads(piece)["choices"][0]["delta"]["content"] for piece in pieces] == ["Hello!", " This"]
    assert [json.loads(piece)["choices"][0]["finish_reason"] for piece in pieces] == [None, None]
    delta = {"role": "assistant", "content": ""}
    assert json.loads(last)["choices"] == [{"index": 0, "delta": delta, "finish_reason": "length"}]
    assert "usage" not in last


def test_a_chat_stream_counts_in_one_more_chunk_when_asked(http: httpx.Client) -> None:
    request = {
        "model": "simulator",
        "messages": HI,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    *_, usage, done = events(http.post("/v1/chat/completions", json=request))
    assert done == "[DONE]"
    assert json.loads(usage)["choices"] == []
    counted = json.loads(usage)["usage"]
    assert list(counted) == ["prompt_tokens", "completion_tokens", "total_tokens"]
    assert counted["total_tokens"] == counted["prompt_tokens"] + len(TOKENS)


def test_a_completion_stream_with_usage_counts_zero_until_the_last_chunk(http: httpx.Client) -> None:
    request = {"model": "simulator", "prompt": "Hi", "stream": True, "max_tokens": 2}
    request["stream_options"] = {"include_usage": True}
    *pieces, usage, done = events(http.post("/v1/completions", json=request))
    members = "id object created choices model system_fingerprint usage"
    assert list(json.loads(pieces[0])) == members.split()
    assert {json.loads(piece)["usage"]["total_tokens"] for piece in pieces} == {0}
    assert json.loads(usage)["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert (json.loads(usage)["choices"], done) == ([], "[DONE]")


def test_a_completion_of_an_empty_prompt_says_load(http: httpx.Client) -> None:
    request: dict[str, object] = {"model": "simulator", "prompt": ""}
    whole = http.post("/v1/completions", json=request).json()
    assert whole["choices"] == [{"text": "", "index": 0, "finish_reason": "load"}]
    streamed = events(http.post("/v1/completions", json=request | {"stream": True}))
    assert len(streamed) == 2
    assert json.loads(streamed[0])["choices"] == whole["choices"]


def test_a_response_stream_tells_its_whole_story_and_no_done(http: httpx.Client) -> None:
    request = {"model": "simulator", "input": "Hi", "stream": True, "max_output_tokens": 2}
    answer = http.post("/v1/responses", json=request)
    assert (answer.headers["connection"], answer.headers["cache-control"]) == ("keep-alive", "no-cache")
    told = [json.loads(event) for event in events(answer)]
    assert [event["type"].removeprefix("response.") for event in told] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event["sequence_number"] for event in told] == list(range(10))
    assert told[-1]["response"]["usage"]["output_tokens"] == 2
    assert answer.text.startswith("event: response.created\ndata: {")


def test_embeddings_come_as_numbers_or_as_base64_of_the_same(http: httpx.Client) -> None:
    request = {"model": "simulator", "input": ["a", "b"]}
    answer = http.post("/v1/embeddings", json=request).json()
    assert list(answer) == ["object", "data", "model", "usage"]
    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    encoded = http.post("/v1/embeddings", json=request | {"encoding_format": "base64"}).json()
    packed = base64.b64decode(encoded["data"][1]["embedding"])
    assert list(struct.unpack("<384f", packed)) == pytest.approx(answer["data"][1]["embedding"], abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "message"),
    [
        ("chat/completions", "", 400, "invalid_request_error", "EOF"),
        ("chat/completions", "{}", 400, "invalid_request_error", "[] is too short - 'messages'"),
        ("completions", '{"model":"nope"}', 404, "not_found_error", "model 'nope' not found"),
        ("responses", "{}", 400, "invalid_request_error", "model is required"),
        ("embeddings", '{"model":"simulator"}', 400, "invalid_request_error", "invalid input"),
    ],
)
def test_errors_are_in_the_dialect_of_openai(
    http: httpx.Client, path: str, body: str, status: int, kind: str, message: str
) -> None:
    answer = http.post(f"/v1/{path}", content=body)
    error = {"message": message, "type": kind, "param": None, "code": None}
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_the_openai_client_reads_every_route_whole(openai_client: openai.OpenAI) -> None:
    assert (
        openai_client.chat.completions.create(model="simulator", messages=HI).choices[0].message.content
        == ANSWER
    )
    assert openai_client.completions.create(model="simulator", prompt="Hi").choices[0].text == ANSWER
    assert openai_client.responses.create(model="simulator", input="Hi").output_text == ANSWER
    assert len(openai_client.embeddings.create(model="simulator", input="Hi").data[0].embedding) == 384
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        openai_client.chat.completions.create(model="nope", messages=HI)


def test_the_openai_client_reads_every_route_as_a_stream(openai_client: openai.OpenAI) -> None:
    chunks = list(
        openai_client.chat.completions.create(
            model="simulator", messages=HI, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(TOKENS)
    texts = openai_client.completions.create(model="simulator", prompt="Hi", stream=True)
    assert "".join(chunk.choices[0].text for chunk in texts) == ANSWER
    told = list(openai_client.responses.create(model="simulator", input="Hi", stream=True))
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == ANSWER
    last = told[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == ANSWER
