"""Every SDK with a key for one model: what ordinary users send passes, other models are refused in words.

Chats, streams, tools, embeddings, JSON schemas and Unicode; no body of theirs is unreadable to the proxy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama as package
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from ..wire.site import Keys, Site
from .conftest import Ollama

TEXT = 'Grüße, 世界 🦙👩‍👩‍👧 "cloud" \\u0041 \u2028 {"model": "other"}'
MESSAGES: Any = [{"role": "system", "content": "Be brief. 😀"}, {"role": "user", "content": TEXT}]
SCHEMA: Any = {
    "title": "weather",
    "type": "object",
    "properties": {"model": {"type": "string"}, "größe": {"type": "integer"}},
    "required": ["model"],
}
FUNCTION = {"name": "weather", "description": TEXT, "parameters": SCHEMA}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
DENIED = "this key may not use the model"


class Weather(BaseModel):
    """The weather somewhere."""

    model: str = Field(description=TEXT)


@pytest.fixture(scope="module", autouse=True)
def all_readable(site: Site) -> Iterator[None]:
    before = site.metric("ollama_proxy_denied_total", {"code": "unreadable_body"})
    yield
    assert site.metric("ollama_proxy_denied_total", {"code": "unreadable_body"}) == before


# ollama


@pytest.fixture
def native(trusted: str, limited: str) -> package.Client:
    return package.Client(trusted, headers={"Authorization": f"Bearer {limited}"})


def test_ollama_asks_its_model(native: package.Client, brief_model: str) -> None:
    called = {"function": {"name": "weather", "arguments": {"model": "x", "größe": 1}}}
    history = [
        *MESSAGES,
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": TEXT, "tool_name": "weather"},
    ]
    *parts, last = native.chat(brief_model, history, tools=TOOLS, stream=True, keep_alive="5m")
    assert parts
    assert last.done
    assert native.generate(brief_model, TEXT, system="Be brief.").response
    shaped = native.chat(brief_model, MESSAGES, format=SCHEMA, options={"seed": 1, "num_ctx": 512})
    assert (shaped.message.content or "").startswith("{")
    assert len(native.embed(brief_model, [TEXT, "two"]).embeddings) == 2
    assert native.show(brief_model).details


def test_ollama_asks_its_model_asynchronously(
    trusted: str, limited: str, brief_model: str, ollama: Ollama
) -> None:
    async def run() -> None:
        client = package.AsyncClient(trusted, headers={"Authorization": f"Bearer {limited}"})
        assert (await client.chat(brief_model, MESSAGES, tools=TOOLS)).message.content
        with pytest.raises(package.ResponseError, match=DENIED) as raised:
            await client.embed(ollama.model, "one")
        assert raised.value.status_code == 403

    asyncio.run(run())


def test_ollama_is_told_that_another_model_is_not_its_own(native: package.Client, ollama: Ollama) -> None:
    for attempt in (
        lambda: native.chat(ollama.model, MESSAGES),
        lambda: list(native.generate(ollama.model, "Hi", stream=True)),
        lambda: native.embed(ollama.model, "Hi"),
        lambda: native.show(ollama.model),
        lambda: native.chat(f"{ollama.model}-cloud", MESSAGES),
    ):
        with pytest.raises(package.ResponseError, match=DENIED) as raised:
            attempt()
        assert raised.value.status_code == 403


# openai


@pytest.fixture
def oai(trusted: str, limited: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{trusted}/v1", api_key=limited)


def test_openai_asks_its_model(oai: openai.OpenAI, brief_model: str) -> None:
    called = {"name": "weather", "arguments": json.dumps({"model": TEXT})}
    history: Any = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": called}]},
        {"role": "tool", "tool_call_id": "c", "content": TEXT},
    ]
    *_, last = oai.chat.completions.create(
        model=brief_model,
        messages=history,
        tools=TOOLS,
        tool_choice="auto",
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.usage
    shaped = oai.chat.completions.create(
        model=brief_model,
        messages=MESSAGES,
        response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}},
    )
    assert (shaped.choices[0].message.content or "").startswith("{")
    tools: Any = [{"type": "function", "strict": False, **FUNCTION}]
    *_, ended = oai.responses.create(
        model=brief_model, instructions="Be brief.", input=MESSAGES, tools=tools, stream=True
    )
    assert ended.type == "response.completed"
    assert oai.completions.create(model=brief_model, prompt=TEXT).choices
    assert len(oai.embeddings.create(model=brief_model, input=[TEXT, "two"]).data) == 2
    assert oai.models.retrieve(brief_model).id == brief_model


def test_openai_asks_its_model_asynchronously(
    trusted: str, limited: str, brief_model: str, ollama: Ollama
) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{trusted}/v1", api_key=limited) as client:
            chat = await client.chat.completions.create(
                model=brief_model, messages=MESSAGES, tools=TOOLS, stream=True
            )
            assert [chunk async for chunk in chat]
            with pytest.raises(openai.PermissionDeniedError, match=DENIED):
                await client.embeddings.create(model=ollama.model, input="one")

    asyncio.run(run())


def test_openai_is_told_that_another_model_is_not_its_own(oai: openai.OpenAI, ollama: Ollama) -> None:
    for attempt in (
        lambda: oai.chat.completions.create(model=ollama.model, messages=MESSAGES),
        lambda: oai.chat.completions.create(model=ollama.model, messages=MESSAGES, stream=True),
        lambda: oai.completions.create(model=ollama.model, prompt="Hi"),
        lambda: oai.responses.create(model=ollama.model, input="Hi"),
        lambda: oai.embeddings.create(model=ollama.model, input="Hi"),
        lambda: oai.models.retrieve(ollama.model),
        lambda: oai.chat.completions.create(model=f"{ollama.model}-cloud", messages=MESSAGES),
    ):
        with pytest.raises(openai.PermissionDeniedError, match=DENIED) as raised:
            attempt()
        assert raised.value.code == "model_denied"


# anthropic


@pytest.fixture
def claude(trusted: str, limited: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=trusted, api_key=limited)


HELLO: Any = [{"role": "user", "content": TEXT}]


def test_anthropic_asks_its_model(claude: anthropic.Anthropic, brief_model: str) -> None:
    used = {"type": "tool_use", "id": "t", "name": "weather", "input": {"model": TEXT}}
    told = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": TEXT}]}
    history: Any = [
        {"role": "user", "content": [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [told]},
    ]
    tools: Any = [{"name": "weather", "description": TEXT, "input_schema": SCHEMA}]
    with claude.messages.stream(
        model=brief_model,
        max_tokens=8,
        system=[{"type": "text", "text": TEXT}],
        messages=history,
        tools=tools,
        tool_choice={"type": "auto"},
    ) as stream:
        assert "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens


def test_anthropic_asks_its_model_asynchronously(
    trusted: str, limited: str, brief_model: str, ollama: Ollama
) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=trusted, api_key=limited) as client:
            assert (await client.messages.create(model=brief_model, max_tokens=8, messages=HELLO)).content
            with pytest.raises(anthropic.PermissionDeniedError, match=DENIED):
                await client.messages.create(model=ollama.model, max_tokens=8, messages=HELLO)

    asyncio.run(run())


def test_anthropic_is_told_that_another_model_is_not_its_own(
    claude: anthropic.Anthropic, ollama: Ollama
) -> None:
    for model in (ollama.model, f"{ollama.model}-cloud"):
        with pytest.raises(anthropic.PermissionDeniedError, match=DENIED):
            claude.messages.create(model=model, max_tokens=1, messages=HELLO)
        with (
            pytest.raises(anthropic.PermissionDeniedError, match=DENIED),
            claude.messages.stream(model=model, max_tokens=1, messages=HELLO),
        ):
            pass


def test_anthropic_is_told_that_a_web_search_needs_the_account(
    claude: anthropic.Anthropic, brief_model: str
) -> None:
    """Ollama would make it with the server's account."""
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    with pytest.raises(anthropic.PermissionDeniedError, match="account"):
        claude.messages.create(model=brief_model, max_tokens=1, messages=HELLO, tools=tools)


# LangChain


def test_langchain_ollama_asks_its_model(trusted: str, limited: str, brief_model: str) -> None:
    # The key is the password in the URL; it is sent as Basic.
    url = trusted.replace("https://", f"https://any:{limited}@")
    chat = ChatOllama(model=brief_model, base_url=url)
    assert chat.bind_tools([Weather]).invoke([HumanMessage(TEXT)]).content
    assert [part for part in chat.stream(TEXT) if part.content]
    assert asyncio.run(chat.ainvoke(TEXT)).content
    shaped: Any = chat.with_structured_output(SCHEMA, method="json_schema", include_raw=True).invoke("Hi")
    assert shaped["raw"].content.startswith("{")
    assert len(OllamaEmbeddings(model=brief_model, base_url=url).embed_documents([TEXT, "two"])) == 2


def test_langchain_openai_asks_its_model(trusted: str, limited: str, brief_model: str) -> None:
    chat = ChatOpenAI(
        model=brief_model,
        temperature=0,  # else Ollama takes 1 here, and some JSON would not end within the model's 8 tokens
        base_url=f"{trusted}/v1",
        api_key=limited,  # type: ignore[arg-type]
    )
    assert chat.bind_tools([Weather]).invoke([HumanMessage(TEXT)]).content
    assert [part for part in chat.stream(TEXT) if part.content]
    assert asyncio.run(chat.ainvoke(TEXT)).content
    shaped: Any = chat.with_structured_output(SCHEMA, method="json_mode", include_raw=True).invoke("Hi")
    assert shaped["raw"].content.startswith("{")
    embeddings = OpenAIEmbeddings(
        model=brief_model,
        base_url=f"{trusted}/v1",
        api_key=limited,  # type: ignore[arg-type]
        check_embedding_ctx_length=False,
    )
    assert len(embeddings.embed_documents([TEXT, "two"])) == 2


def test_langchain_is_told_that_another_model_is_not_its_own(
    trusted: str, limited: str, ollama: Ollama
) -> None:
    headers = {"headers": {"Authorization": f"Bearer {limited}"}}
    with pytest.raises(package.ResponseError, match=DENIED):
        ChatOllama(model=ollama.model, base_url=trusted, client_kwargs=headers).invoke("Hi")
    with pytest.raises(openai.PermissionDeniedError, match=DENIED):
        ChatOpenAI(model=ollama.model, base_url=f"{trusted}/v1", api_key=limited).invoke("Hi")  # type: ignore[arg-type]


# Keys for every local model


def test_a_key_without_the_cloud_is_told_so(trusted: str, keys: Keys, ollama: Ollama) -> None:
    name = f"{ollama.model}-cloud"
    native = package.Client(trusted, headers={"Authorization": f"Bearer {keys.default}"})
    with pytest.raises(package.ResponseError, match="cloud") as raised:
        native.chat(name, MESSAGES)
    assert raised.value.status_code == 403
    with pytest.raises(openai.PermissionDeniedError, match="cloud") as refused:
        openai.OpenAI(base_url=f"{trusted}/v1", api_key=keys.default).responses.create(model=name, input="Hi")
    assert refused.value.code == "cloud_denied"
    with pytest.raises(anthropic.PermissionDeniedError, match="cloud"):
        anthropic.Anthropic(base_url=trusted, api_key=keys.default).messages.create(
            model=name, max_tokens=1, messages=HELLO
        )
