"""The `anthropic` package with the proxy as its base_url, and the key in each place where it sends one."""

from __future__ import annotations

import asyncio
import time

import anthropic
import pytest
from anthropic.types import MessageParam

from ..wire.site import Keys
from .conftest import Ollama

MESSAGES: list[MessageParam] = [{"role": "user", "content": "Count from one to twenty."}]


@pytest.fixture
def client(trusted: str, keys: Keys) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=trusted, api_key=keys.inference)


@pytest.fixture
def async_client(trusted: str, keys: Keys) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=trusted, api_key=keys.inference)


def test_it_asks(client: anthropic.Anthropic, ollama: Ollama) -> None:
    answer = client.messages.create(model=ollama.model, messages=MESSAGES, max_tokens=5)
    assert answer.content[0].type == "text"
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 5
    assert answer._request_id


def test_it_streams(client: anthropic.Anthropic, ollama: Ollama, seconds_a_token: float) -> None:
    with client.messages.stream(model=ollama.model, messages=MESSAGES, max_tokens=12) as stream:
        texts = [(time.monotonic(), text) for text in stream.text_stream]
        answer = stream.get_final_message()
    assert answer.usage.output_tokens == 12
    assert len(texts) > 8
    assert texts[-1][0] - texts[0][0] > seconds_a_token, "the text came at once"


def test_it_asks_and_streams_asynchronously(async_client: anthropic.AsyncAnthropic, ollama: Ollama) -> None:
    async def run() -> None:
        async with async_client as client:
            answer = await client.messages.create(model=ollama.model, messages=MESSAGES, max_tokens=5)
            assert answer.usage.output_tokens == 5
            events = await client.messages.create(
                model=ollama.model, messages=MESSAGES, max_tokens=5, stream=True
            )
            kinds = [event.type async for event in events]
            assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")

    asyncio.run(run())


@pytest.mark.parametrize("places", ["auth_token", "x-api-key", "both"])
def test_the_key_is_taken_from_every_place(places: str, trusted: str, keys: Keys, ollama: Ollama) -> None:
    client = anthropic.Anthropic(
        base_url=trusted,
        auth_token=None if places == "x-api-key" else keys.inference,
        default_headers={} if places == "auth_token" else {"X-Api-Key": keys.inference},
    )
    assert client.messages.create(model=ollama.model, messages=MESSAGES, max_tokens=1).content


def test_it_tells_an_unknown_model(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="oap-test-none"):
        client.messages.create(model="oap-test-none", messages=MESSAGES, max_tokens=1)
    with (
        pytest.raises(anthropic.NotFoundError, match="oap-test-none"),
        client.messages.stream(model="oap-test-none", messages=MESSAGES, max_tokens=1),
    ):
        pass


def test_it_tells_a_wrong_key(
    client: anthropic.Anthropic, async_client: anthropic.AsyncAnthropic, keys: Keys, ollama: Ollama
) -> None:
    with pytest.raises(anthropic.AuthenticationError) as raised:
        client.with_options(api_key=keys.unknown).messages.create(
            model=ollama.model, messages=MESSAGES, max_tokens=1
        )
    assert raised.value.request_id

    async def run() -> None:
        async with async_client.with_options(api_key=keys.unknown) as wrong:
            with pytest.raises(anthropic.AuthenticationError):
                await wrong.messages.create(model=ollama.model, messages=MESSAGES, max_tokens=1, stream=True)

    asyncio.run(run())


def test_it_tells_a_missing_scope(client: anthropic.Anthropic, keys: Keys, ollama: Ollama) -> None:
    with pytest.raises(anthropic.PermissionDeniedError, match="inference"):
        client.with_options(api_key=keys.read).messages.create(
            model=ollama.model, messages=MESSAGES, max_tokens=1
        )


def test_it_does_not_trust_another_certificate(
    trusted: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    client = anthropic.Anthropic(base_url=trusted, api_key=keys.inference, max_retries=0)
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(model="any", messages=MESSAGES, max_tokens=1)
