"""Answers of a model through the proxy: those that Ollama itself gives, as they come.

With temperature 0 Ollama gives the same answer each time, so one asked for directly is the measure.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from ..wire.site import Keys
from .answers import Answer, ask, made_at, unchanging, without_ours
from .conftest import Ollama, Proxied

QUESTION = "Count from one to twenty."
MESSAGES = [{"role": "user", "content": QUESTION}]
TOKENS = 10
OPTIONS = {"num_predict": TOKENS, "temperature": 0, "seed": 7}

ASKED: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": QUESTION, "options": OPTIONS},
    "/api/chat": {"messages": MESSAGES, "options": OPTIONS},
    "/v1/chat/completions": {
        "messages": MESSAGES,
        "max_tokens": TOKENS,
        "temperature": 0,
        "seed": 7,
        "stream_options": {"include_usage": True},
    },
    "/v1/completions": {"prompt": QUESTION, "max_tokens": TOKENS, "temperature": 0, "seed": 7},
    "/v1/responses": {"input": QUESTION, "max_output_tokens": TOKENS, "temperature": 0},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0},
}
EMBEDDED: dict[str, dict[str, Any]] = {
    "/api/embed": {"input": ["one", "two"]},
    "/api/embeddings": {"prompt": "one"},
    "/v1/embeddings": {"input": "one"},
}
LAST_LINE = {
    "/api/generate": b'"done":true',
    "/api/chat": b'"done":true',
    "/v1/chat/completions": b"data: [DONE]\n",
    "/v1/completions": b"data: [DONE]\n",
    "/v1/responses": b"event: response.completed\n",
    "/v1/messages": b"event: message_stop\n",
}


@dataclass(frozen=True)
class Pair:
    """The same question asked twice."""

    path: str
    direct: Answer
    proxied: Answer


def ask_both(path: str, body: dict[str, Any], direct: httpx.Client, client: httpx.Client) -> Pair:
    return Pair(path, ask(direct, "POST", path, body), ask(client, "POST", path, body))


@pytest.fixture(scope="module", params=ASKED)
def streamed(
    request: pytest.FixtureRequest, ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> Pair:
    body = {"model": ollama.model, **ASKED[request.param], "stream": True}
    return ask_both(request.param, body, direct, proxied(keys.inference))


def check_same(pair: Pair) -> None:
    assert pair.proxied.status == pair.direct.status == 200
    assert unchanging(pair.proxied.body) == unchanging(pair.direct.body)
    assert without_ours(pair.proxied.headers) == without_ours(pair.direct.headers)
    assert pair.proxied.headers["x-request-id"]


def test_a_stream_is_byte_for_byte_what_ollama_sends(streamed: Pair) -> None:
    check_same(streamed)
    assert LAST_LINE[streamed.path] in streamed.proxied.body
    assert streamed.proxied.headers["transfer-encoding"] == "chunked"


def test_a_stream_arrives_chunk_by_chunk_as_the_model_speaks(streamed: Pair) -> None:
    """Each token comes by itself; the span is compared with room for a machine that is busy at times."""
    arrivals = {arrived for arrived, _ in streamed.proxied.lines}
    assert len(arrivals) > TOKENS * 0.7
    assert streamed.proxied.span > streamed.direct.span / 10


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_no_chunk_is_held_back(path: str, ollama: Ollama, proxied: Proxied, keys: Keys) -> None:
    """Ollama says when it made each chunk; a proxy that waited for more would deliver the first ones late."""
    body = {**ASKED[path], "model": ollama.model, "options": {**OPTIONS, "num_predict": 16}}
    answer = ask(proxied(keys.inference), "POST", path, body)
    made = [made_at(document) for document in answer.documents()]
    delays = [arrived - then for (arrived, _), then in zip(answer.lines, made, strict=True)]
    late = [delay for delay in delays if delay - min(delays) > (made[-1] - made[0]) / 4]
    assert len(made) > 12
    assert len(late) < len(made) / 4, delays


@pytest.mark.parametrize("path", ASKED)
def test_an_answer_in_one_piece_is_byte_for_byte_what_ollama_sends(
    path: str, ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    body = {"model": ollama.model, **ASKED[path], "stream": False}
    pair = ask_both(path, body, direct, proxied(keys.inference))
    check_same(pair)
    assert len(pair.proxied.documents()) == 1


@pytest.mark.parametrize("path", EMBEDDED)
def test_embeddings_are_those_that_ollama_makes(
    path: str, ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    pair = ask_both(path, {"model": ollama.model, **EMBEDDED[path]}, direct, proxied(keys.inference))
    check_same(pair)
    assert b"embedding" in pair.proxied.body


def wait_until_unloaded(direct: httpx.Client, model: str) -> None:
    deadline = time.monotonic() + 10
    while model in [entry["model"] for entry in direct.get("/api/ps").json()["models"]]:
        assert time.monotonic() < deadline, f"{model} stays loaded"
        time.sleep(0.05)


def test_a_model_that_is_not_loaded_answers_when_it_has_loaded(
    ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    client = proxied(keys.default)
    unloaded = client.post("/api/generate", json={"model": ollama.model, "keep_alive": 0})
    assert unloaded.json()["done_reason"] == "unload"
    wait_until_unloaded(direct, ollama.model)
    question = {"model": ollama.model, "prompt": "Hi", "options": {"num_predict": 1}, "stream": False}
    cold, warm = (client.post("/api/generate", json=question).json() for _ in range(2))
    assert cold["done"]
    assert cold["load_duration"] > 2 * warm["load_duration"], "the model was loaded before"
