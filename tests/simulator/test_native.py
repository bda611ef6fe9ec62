"""Ollama's own inference routes: exact shapes, and ollama's Python client."""

from __future__ import annotations

import json
import math

import httpx
import ollama
import pytest

from proxy.simulator.text import ANSWER, TOKENS

METRICS = ["total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration"]
METRICS += ["eval_count", "eval_duration"]
HI = [{"role": "user", "content": "Hi"}]


def lines(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_chat_streams_by_default_and_ends_with_the_figures(http: httpx.Client) -> None:
    answer = http.post("/api/chat", json={"model": "SmolLM2:135m", "messages": HI})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["transfer-encoding"] == "chunked"
    *pieces, last = lines(answer)
    assert list(pieces[0]) == ["model", "created_at", "message", "done"]
    assert pieces[0]["model"] == "SmolLM2:135m"
    assert pieces[0]["message"] == {"role": "assistant", "content": "Hello!"}
    assert "".join(piece["message"]["content"] for piece in pieces) == ANSWER  # type: ignore[index]
    assert list(last) == ["model", "created_at", "message", "done", "done_reason", *METRICS]
    assert (last["message"], last["done"]) == ({"role": "assistant", "content": ""}, True)
    assert (last["done_reason"], last["eval_count"]) == ("stop", len(TOKENS))


def test_generate_gives_a_context_with_the_figures_and_none_when_raw(http: httpx.Client) -> None:
    request = {"model": "smollm2:135m", "prompt": "one two three", "options": {"num_predict": 4}}
    *pieces, last = lines(http.post("/api/generate", json=request))
    assert [list(piece) for piece in pieces] == [["model", "created_at", "response", "done"]] * 4
    assert list(last) == ["model", "created_at", "response", "done", "done_reason", "context", *METRICS]
    assert (last["response"], last["done_reason"]) == ("", "length")
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, 4)
    assert len(last["context"]) == 7  # type: ignore[arg-type]
    raw = http.post("/api/generate", json=request | {"raw": True, "stream": False})
    assert "context" not in raw.json()


def test_an_answer_in_one_piece_is_plain_json_with_its_length(http: httpx.Client) -> None:
    request = {"model": "smollm2:135m", "messages": HI, "stream": False}
    answer = http.post("/api/chat", json=request)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert "content-length" in answer.headers
    assert not answer.text.endswith("\n")
    assert answer.json()["message"]["content"] == ANSWER
    assert "not a language model" in ANSWER


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("keep_alive", "reason"), [(None, "load"), ("5m", "load"), (0, "unload"), ("0s", "unload")]
)
def test_an_empty_prompt_loads_or_unloads_and_answers_one_object(
    http: httpx.Client, stream: bool, keep_alive: object, reason: str
) -> None:
    request = {"model": "smollm2:135m", "stream": stream, "keep_alive": keep_alive}
    generated = http.post("/api/generate", json=request)
    assert generated.headers["content-type"] == "application/json; charset=utf-8"
    assert list(generated.json()) == ["model", "created_at", "response", "done", "done_reason"]
    assert generated.json()["done_reason"] == reason
    chatted = http.post("/api/chat", json=request | {"messages": []})
    assert list(chatted.json()) == ["model", "created_at", "message", "done", "done_reason"]
    names = [model["name"] for model in http.get("/api/ps").json()["models"]]
    assert ("smollm2:135m" in names) == (reason == "load")


def test_embed_gives_one_unit_vector_of_384_numbers_for_each_text(http: httpx.Client) -> None:
    request = {"model": "smollm2:135m", "input": ["one", "two words"]}
    answer = http.post("/api/embed", json=request)
    assert "content-length" not in answer.headers
    members = ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    assert list(answer.json()) == members
    one, two = answer.json()["embeddings"]
    assert (len(one), len(two)) == (384, 384)
    assert math.hypot(*one) == pytest.approx(1)
    assert one != two
    assert http.post("/api/embed", json=request).json()["embeddings"] == [one, two]
    cut = http.post("/api/embed", json=request | {"dimensions": 3}).json()["embeddings"][0]
    assert len(cut) == 3
    assert math.hypot(*cut) == pytest.approx(1)


def test_embeddings_gives_the_vector_alone_and_none_for_an_empty_prompt(http: httpx.Client) -> None:
    request = {"model": "smollm2:135m", "prompt": "x"}
    answer = http.post("/api/embeddings", json=request).json()
    assert list(answer) == ["embedding"]
    assert len(answer["embedding"]) == 384
    empty = http.post("/api/embeddings", json={"model": "smollm2:135m"})
    assert empty.text == '{"embedding":[]}'


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/chat", "", 400, "missing request body"),
        ("/api/chat", "{bad", 400, "invalid character 'b' looking for beginning of object key string"),
        ("/api/chat", "hello", 400, "invalid character 'h' looking for beginning of value"),
        ("/api/chat", '{"model":"x', 400, "unexpected EOF"),
        ("/api/chat", "[]", 400, "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        ("/api/chat", "{}", 400, "model is required"),
        ("/api/chat", '{"model":"nope"}', 404, "model 'nope' not found"),
        ("/api/generate", '{"model":"smollm2"}', 404, "model 'smollm2' not found"),
        ("/api/generate", "{}", 404, "model '' not found"),
        ("/api/generate", '{"model":"a b"}', 400, "invalid model name"),
        (
            "/api/generate",
            '{"model":3}',
            400,
            "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string",
        ),
        ("/api/generate", '{"model":"simulator","keep_alive":"zz"}', 400, 'time: invalid duration "zz"'),
        ("/api/show", "{}", 400, "model is required"),
        ("/api/embed", '{"model":"nope","input":"x"}', 404, 'model "nope" not found, try pulling it first'),
        ("/api/embed", '{"model":"simulator","input":3}', 400, "invalid input type"),
        ("/api/chat", '{"model":"x:cloud"}', 403, "ollama cloud is disabled: remote model is unavailable"),
    ],
)
def test_errors_have_the_status_and_the_words_of_ollama(
    http: httpx.Client, path: str, body: str, status: int, error: str
) -> None:
    answer = http.post(path, content=body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_think_tools_and_unknown_members_are_tolerated(http: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    request = {"model": "simulator", "messages": HI, "stream": False, "think": True, "tools": [tool], "x": 1}
    assert http.post("/api/chat", json=request).json()["message"]["content"] == ANSWER


def test_the_ollama_client_chats_generates_and_embeds(ollama_client: ollama.Client) -> None:
    assert ollama_client.chat("simulator", messages=HI).message.content == ANSWER
    pieces = [
        part.message.content or "" for part in ollama_client.chat("simulator", messages=HI, stream=True)
    ]
    assert "".join(pieces) == ANSWER
    assert len(pieces) == len(TOKENS) + 1
    assert ollama_client.generate("simulator", "Hi").response == ANSWER
    assert (
        "".join(part.response or "" for part in ollama_client.generate("simulator", "Hi", stream=True))
        == ANSWER
    )
    assert len(ollama_client.embed("simulator", "Hi").embeddings[0]) == 384
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as refused:
        ollama_client.chat("nope", messages=HI)
    assert refused.value.status_code == 404


def test_what_was_asked_is_never_in_the_answer(http: httpx.Client) -> None:
    prompt = "correct horse battery staple"
    request = {"model": "simulator", "prompt": prompt, "system": prompt, "stream": False}
    assert prompt not in http.post("/api/generate", json=request).text
