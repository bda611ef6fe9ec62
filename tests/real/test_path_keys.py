"""Every SDK with nothing but a base URL that holds the key: `https://HOST:8443/~KEY`."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import ollama as package
import openai
import pytest
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI

from ..wire.site import Keys
from .conftest import Ollama

MESSAGES: Any = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
def base(trusted: str, limited: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("OLLAMA_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return f"{trusted}/~{limited}"


def test_ollama(base: str, brief_model: str, ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", base)
    client = package.Client()
    assert client.list().models
    assert list(client.chat(brief_model, MESSAGES, stream=True))[-1].done
    assert client.embed(brief_model, "one").embeddings
    assert asyncio.run(package.AsyncClient().chat(brief_model, MESSAGES)).done
    with pytest.raises(package.ResponseError, match="this key may not use the model"):
        client.chat(ollama.model, MESSAGES)


def test_openai(base: str, brief_model: str, ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{base}/v1")
    client = openai.OpenAI(api_key="any")
    assert list(client.chat.completions.create(model=brief_model, messages=MESSAGES, stream=True))
    assert client.responses.create(model=brief_model, input="Hi").output_text
    assert client.embeddings.create(model=brief_model, input="one").data
    assert client.models.retrieve(brief_model).id == brief_model

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key="any") as other:
            assert (await other.chat.completions.create(model=brief_model, messages=MESSAGES)).choices

    asyncio.run(run())
    with pytest.raises(openai.PermissionDeniedError, match="this key may not use the model"):
        client.chat.completions.create(model=ollama.model, messages=MESSAGES)


def test_anthropic(base: str, brief_model: str, ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", base)
    client = anthropic.Anthropic(api_key="any")
    with client.messages.stream(model=brief_model, max_tokens=8, messages=MESSAGES) as stream:
        assert "".join(stream.text_stream)

    async def run() -> None:
        async with anthropic.AsyncAnthropic(auth_token="any") as other:
            answer = await other.messages.create(model=brief_model, max_tokens=8, messages=MESSAGES)
            assert answer.content

    asyncio.run(run())
    with pytest.raises(anthropic.PermissionDeniedError, match="this key may not use the model"):
        client.messages.create(model=ollama.model, max_tokens=8, messages=MESSAGES)


def test_langchain(base: str, brief_model: str) -> None:
    assert ChatOllama(model=brief_model, base_url=base).invoke("Hi").content
    assert OllamaEmbeddings(model=brief_model, base_url=base).embed_query("one")
    assert ChatOpenAI(model=brief_model, base_url=f"{base}/v1", api_key="any").invoke("Hi").content  # type: ignore[arg-type]


def test_a_real_key_in_a_header_beside_it_is_one_too_many(base: str, keys: Keys) -> None:
    client = package.Client(base, headers={"Authorization": f"Bearer {keys.read}"})
    with pytest.raises(package.ResponseError, match="two credentials") as raised:
        client.list()
    assert raised.value.status_code == 400


def test_a_wrong_key_is_told(trusted: str, keys: Keys) -> None:
    with pytest.raises(package.ResponseError, match="check the key") as raised:
        package.Client(f"{trusted}/~{keys.unknown}").list()
    assert raised.value.status_code == 401
