"""The `openai` package with the proxy as its base_url."""

from __future__ import annotations

import asyncio
import time

import openai
import pytest

from ..wire.site import Keys
from .conftest import Ollama

QUESTION = "Count from one to twenty."


@pytest.fixture
def client(trusted: str, keys: Keys) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{trusted}/v1", api_key=keys.default)


@pytest.fixture
def async_client(trusted: str, keys: Keys) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{trusted}/v1", api_key=keys.default)


def test_it_asks_and_reads(client: openai.OpenAI, ollama: Ollama) -> None:
    chat = client.chat.completions.create(
        model=ollama.model, messages=[{"role": "user", "content": QUESTION}], max_tokens=5
    )
    assert chat.choices[0].message.content
    assert chat.usage
    assert chat.usage.completion_tokens == 5
    completion = client.completions.create(model=ollama.model, prompt=QUESTION, max_tokens=5)
    assert completion.choices[0].text
    response = client.responses.create(model=ollama.model, input=QUESTION, max_output_tokens=5)
    assert response.output_text
    embedding = client.embeddings.create(model=ollama.model, input="one")
    assert len(embedding.data[0].embedding) > 100
    assert ollama.model in [model.id for model in client.models.list()]
    assert client.models.retrieve(ollama.model).id == ollama.model


def test_it_streams(client: openai.OpenAI, ollama: Ollama, seconds_a_token: float) -> None:
    chat = client.chat.completions.create(
        model=ollama.model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [(time.monotonic(), chunk) for chunk in chat]
    last = chunks[-1][1]
    assert last.usage
    assert last.usage.completion_tokens == 12
    assert len(chunks) > 10
    assert chunks[-1][0] - chunks[0][0] > seconds_a_token, "the chunks came at once"

    completion = client.completions.create(model=ollama.model, prompt=QUESTION, max_tokens=5, stream=True)
    assert "".join(part.choices[0].text for part in completion if part.choices)
    *_, ended = client.responses.create(model=ollama.model, input=QUESTION, max_output_tokens=5, stream=True)
    assert ended.type == "response.completed"


def test_it_asks_and_streams_asynchronously(async_client: openai.AsyncOpenAI, ollama: Ollama) -> None:
    async def run() -> None:
        async with async_client as client:
            chat = await client.chat.completions.create(
                model=ollama.model, messages=[{"role": "user", "content": QUESTION}], max_tokens=5
            )
            assert chat.choices[0].message.content
            stream = await client.responses.create(
                model=ollama.model, input=QUESTION, max_output_tokens=5, stream=True
            )
            kinds = [event.type async for event in stream]
            assert kinds[0] == "response.created"
            assert kinds[-1] == "response.completed"
            assert len((await client.embeddings.create(model=ollama.model, input="one")).data) == 1

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_it_tells_an_unknown_model(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError, match="oap-test-none"):
        client.chat.completions.create(
            model="oap-test-none", messages=[{"role": "user", "content": QUESTION}], stream=stream
        )
    with pytest.raises(openai.NotFoundError, match="oap-test-none"):
        client.responses.create(model="oap-test-none", input=QUESTION, stream=stream)


def test_it_tells_a_wrong_key(client: openai.OpenAI, keys: Keys, ollama: Ollama) -> None:
    wrong = client.with_options(api_key=keys.unknown)
    with pytest.raises(openai.AuthenticationError) as raised:
        wrong.models.list()
    assert raised.value.code == "invalid_credentials"
    assert raised.value.request_id
    with pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model=ollama.model, messages=[], stream=True)


def test_it_tells_a_wrong_key_asynchronously(async_client: openai.AsyncOpenAI, keys: Keys) -> None:
    async def run() -> None:
        async with async_client.with_options(api_key=keys.unknown) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.embeddings.create(model="any", input="one")

    asyncio.run(run())


def test_it_tells_a_missing_scope(client: openai.OpenAI, keys: Keys, ollama: Ollama) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="inference") as raised:
        client.with_options(api_key=keys.read).embeddings.create(model=ollama.model, input="one")
    assert raised.value.code == "scope_denied"


def test_it_does_not_trust_another_certificate(
    trusted: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(base_url=f"{trusted}/v1", api_key=keys.default, max_retries=0).models.list()
