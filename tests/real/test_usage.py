"""What log and metrics say of an answer's tokens is what Ollama says in the answer itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from ..wire.site import Keys, Site
from .answers import Answer, ask
from .conftest import Ollama, Proxied

TOKENS = 4
OPTIONS = {"num_predict": TOKENS, "temperature": 0}
MESSAGES = [{"role": "user", "content": "Count to ten."}]
WITH_USAGE = {"stream_options": {"include_usage": True}}

ASKED: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "Count to ten.", "options": OPTIONS},
    "/api/chat": {"messages": MESSAGES, "options": OPTIONS},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": TOKENS, **WITH_USAGE},
    "/v1/completions": {"prompt": "Count to ten.", "max_tokens": TOKENS, **WITH_USAGE},
    "/v1/responses": {"input": "Count to ten.", "max_output_tokens": TOKENS},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": TOKENS},
}
EMBEDDED: dict[str, dict[str, Any]] = {
    "/api/embed": {"input": ["one", "two"]},
    "/v1/embeddings": {"input": ["one", "two"]},
}

KEY = "inference"
"""The name of the key that asks here."""


def said(path: str, answer: Answer) -> tuple[int, int]:
    """The tokens, read and written, that the body names."""
    last = answer.documents()[-1]
    if path.startswith("/api/"):
        return last.get("prompt_eval_count", 0), last.get("eval_count", 0)
    if path == "/v1/messages" and "usage" not in last:
        last = answer.documents()[-2]
    usage = last.get("response", last)["usage"]
    if path in ("/v1/responses", "/v1/messages"):
        return usage["input_tokens"], usage["output_tokens"]
    return usage["prompt_tokens"], usage.get("completion_tokens", 0)


def chunks(answer: Answer) -> int:
    """The chunks of an OpenAI stream that hold content."""
    return sum(choice["finish_reason"] is None for one in answer.documents() for choice in one["choices"])


class Told:
    """What the proxy told of one answer: its line of the access log, and by how much its metrics grew."""

    def __init__(self, site: Site, model: str) -> None:
        self.site, self.model = site, model
        self.before = self.counted()
        self.entry: dict[str, Any] = {}

    def counted(self) -> tuple[int, int, int]:
        samples = self.site.samples()

        def tokens(**labels: str) -> int:
            return int(self.site.metric("ollama_proxy_tokens_total", labels, samples))

        label = {"key": KEY, "model": self.model}
        return tokens(**label, type="input"), tokens(**label, type="output"), tokens()

    def of(self, answer: Answer) -> dict[str, Any]:
        assert answer.status == 200, answer.body
        self.entry = self.site.logged(answer.headers["x-request-id"])
        return self.entry

    def grew(self) -> tuple[int, int, int]:
        """Tokens read and written by this key with this model, and by anybody with any."""
        read, written, every = (now - then for now, then in zip(self.counted(), self.before, strict=True))
        return read, written, every


@pytest.fixture
def told(site: Site, ollama: Ollama) -> Told:
    return Told(site, ollama.model)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", ASKED)
def test_an_answer_is_counted_as_ollama_counts_it(
    path: str, stream: bool, ollama: Ollama, proxied: Proxied, keys: Keys, told: Told
) -> None:
    body = {"model": ollama.model, **ASKED[path], "stream": stream}
    answer = ask(proxied(keys.inference), "POST", path, body)
    entry = told.of(answer)
    read, written = said(path, answer)
    assert (entry["input_tokens"], entry["output_tokens"]) == (read, written)
    assert read > 0
    assert written == TOKENS
    assert (entry["model"], entry["key_name"], entry["outcome"]) == (ollama.model, KEY, "ok")
    assert told.grew() == (read, written, read + written)


@pytest.mark.parametrize("path", EMBEDDED)
def test_embeddings_cost_what_they_read(
    path: str, ollama: Ollama, proxied: Proxied, keys: Keys, told: Told
) -> None:
    answer = ask(proxied(keys.inference), "POST", path, {"model": ollama.model, **EMBEDDED[path]})
    entry = told.of(answer)
    read, written = said(path, answer)
    assert (entry["input_tokens"], entry["output_tokens"]) == (read, written) == (read, 0)
    assert entry["model"] == ollama.model
    assert told.grew() == (read, 0, read) != (0, 0, 0)


def test_embeddings_that_tell_no_tokens_count_for_none(
    ollama: Ollama, proxied: Proxied, keys: Keys, told: Told
) -> None:
    body = {"model": ollama.model, "prompt": "one"}
    entry = told.of(ask(proxied(keys.inference), "POST", "/api/embeddings", body))
    assert (entry["input_tokens"], entry["output_tokens"]) == (None, None)
    assert told.grew() == (0, 0, 0)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_of_openai_without_usage_counts_its_chunks(
    path: str, ollama: Ollama, proxied: Proxied, keys: Keys, told: Told
) -> None:
    body = {**ASKED[path], "model": ollama.model, "stream": True, "stream_options": {"include_usage": False}}
    answer = ask(proxied(keys.inference), "POST", path, body)
    entry = told.of(answer)
    assert (entry["input_tokens"], entry["output_tokens"]) == (None, chunks(answer)) == (None, TOKENS)
    assert told.grew() == (0, TOKENS, TOKENS)


def test_a_load_costs_nothing(ollama: Ollama, proxied: Proxied, keys: Keys, told: Told) -> None:
    entry = told.of(ask(proxied(keys.inference), "POST", "/api/generate", {"model": ollama.model}))
    assert (entry["input_tokens"], entry["output_tokens"]) == (0, 0)
    assert told.grew() == (0, 0, 0)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_another_spelling_of_a_model_is_the_same_model(
    path: str, ollama: Ollama, proxied: Proxied, keys: Keys, told: Told
) -> None:
    body = {**ASKED[path], "model": f"registry.ollama.ai/library/{ollama.model.upper()}", "stream": False}
    answer = ask(proxied(keys.inference), "POST", path, body)
    assert told.of(answer)["model"] == ollama.model
    read, written = said(path, answer)
    assert told.grew() == (read, written, read + written)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_a_client_that_leaves_has_used_what_came_until_then(
    path: str, ollama: Ollama, proxied: Proxied, keys: Keys, told: Told
) -> None:
    body = {**ASKED[path], "model": ollama.model, "stream": True, "max_tokens": 400}
    body["options"] = {"num_predict": 400, "temperature": 0}
    with left_after(6, proxied(keys.inference), path, body) as (request_id, heard):
        entry = told.site.logged(request_id)
    assert (entry["outcome"], entry["input_tokens"]) == ("client_closed", None)
    assert heard <= entry["output_tokens"] < heard + 60
    assert told.grew() == (0, entry["output_tokens"], entry["output_tokens"])


@contextmanager
def left_after(
    pieces: int, client: httpx.Client, path: str, body: dict[str, Any]
) -> Iterator[tuple[str, int]]:
    """Leave a stream after so many pieces of content; gives the request's id and how many there were."""
    heard = 0
    with client.stream("POST", path, json=body) as response:
        for line in response.iter_lines():
            heard += '"content":"' in line or "text_delta" in line
            if heard >= pieces:
                break
    yield response.headers["x-request-id"], heard
