"""Every SDK with a key for some models: what ordinary users send passes, other models are refused in words.

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

from ..wire.site import Site
from .conftest import Ollama

OTHER = "oap-test-other"
TEXT = 'Grüße, 世界 🦙👩‍👩‍👧 "cloud" \\u0041 \u2028 {"model": "other"}'
FEW = {"num_predict": 5, "temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {"model": {"type": "string"}, "größe": {"type": "integer"}},
    "required": ["model"],
}
FUNCTION = {"name": "weather", "description": TEXT, "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}


class Weather(BaseModel):
    """The weather somewhere."""

    model: str = Field(description=TEXT)


@pytest.fixture(autouse=True)
def all_readable(site: Site) -> Iterator[None]:
    before = len(site.log)
    yield
    assert [line for line in site.log[before:] if line.get("code") == "unreadable_body"] == []


def messages(text: str = TEXT) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief. 😀"}, {"role": "user", "content": text}]


# ollama


@pytest.fixture
def native(trusted: str, limited: str) -> package.Client:
    return package.Client(trusted, headers={"Authorization": f"Bearer {limited}"})


@pytest.fixture
def native_async(trusted: str, limited: str) -> package.AsyncClient:
    return package.AsyncClient(trusted, headers={"Authorization": f"Bearer {limited}"})


def test_ollama_asks_its_model(native: package.Client, ollama: Ollama) -> None:
    assert native.chat(ollama.model, messages(), options=FEW, keep_alive="5m").message.content
    *parts, last = native.generate(ollama.model, TEXT, system="Be brief.", stream=True, options=FEW)
    assert parts
    assert last.done
    assert len(native.embed(ollama.model, [TEXT, "two"]).embeddings) == 2
    assert native.show(ollama.model).details
    answer = native.chat(ollama.model, messages("Hi"), format=SCHEMA, options={**FEW, "num_predict": 20})
    assert (answer.message.content or "").lstrip().startswith("{")


def test_ollama_brings_tools(native: package.Client, tool_model: str) -> None:
    called = {"function": {"name": "weather", "arguments": {"model": "x", "größe": 1}}}
    history = [
        *messages(),
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": TEXT, "tool_name": "weather"},
    ]
    assert native.chat(tool_model, history, tools=[TOOL]).message.content


def test_ollama_asks_asynchronously(native_async: package.AsyncClient, ollama: Ollama) -> None:
    async def run() -> None:
        parts = [p async for p in await native_async.chat(ollama.model, messages(), stream=True, options=FEW)]
        assert parts[-1].done
        with pytest.raises(package.ResponseError, match=OTHER) as raised:
            await native_async.embed(OTHER, "one")
        assert raised.value.status_code == 403

    asyncio.run(run())


def test_ollama_is_told_that_another_model_is_not_its_own(native: package.Client, ollama: Ollama) -> None:
    for attempt in (
        lambda: native.chat(OTHER, messages()),
        lambda: list(native.generate(OTHER, "Hi", stream=True)),
        lambda: native.embed(OTHER, "Hi"),
        lambda: native.show(OTHER),
        lambda: native.chat(f"{ollama.model.split(':')[0]}:cloud", messages()),
    ):
        with pytest.raises(package.ResponseError, match="this key may not use the model") as raised:
            attempt()
        assert raised.value.status_code == 403


# openai


@pytest.fixture
def oai(trusted: str, limited: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{trusted}/v1", api_key=limited)


@pytest.fixture
def oai_async(trusted: str, limited: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{trusted}/v1", api_key=limited)


def test_openai_asks_its_model(oai: openai.OpenAI, ollama: Ollama) -> None:
    chat = oai.chat.completions.create(
        model=ollama.model,
        messages=messages(),  # type: ignore[arg-type]
        max_tokens=5,
        response_format={"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}},
    )
    assert (chat.choices[0].message.content or "").lstrip().startswith("{")
    *_, last = oai.chat.completions.create(
        model=ollama.model,
        messages=messages(),  # type: ignore[arg-type]
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.usage
    assert oai.completions.create(model=ollama.model, prompt=TEXT, max_tokens=5).choices
    *_, ended = oai.responses.create(
        model=ollama.model, instructions="Be brief.", input=TEXT, max_output_tokens=5, stream=True
    )
    assert ended.type == "response.completed"
    assert len(oai.embeddings.create(model=ollama.model, input=[TEXT, "two"]).data) == 2
    assert oai.models.retrieve(ollama.model).id == ollama.model


def test_openai_brings_tools(oai: openai.OpenAI, tool_model: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"a": TEXT})}}
    history: Any = [
        *messages(),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": TEXT},
    ]
    tools: Any = [TOOL]
    chat = oai.chat.completions.create(model=tool_model, messages=history, tools=tools, tool_choice="auto")
    assert chat.choices[0].message.content
    tools = [{"type": "function", "strict": False, **FUNCTION}]
    response = oai.responses.create(model=tool_model, input=TEXT, tools=tools)
    assert response.output_text


def test_openai_asks_asynchronously(oai_async: openai.AsyncOpenAI, ollama: Ollama) -> None:
    async def run() -> None:
        async with oai_async as client:
            chat = await client.chat.completions.create(
                model=ollama.model,
                messages=messages(),  # type: ignore[arg-type]
                max_tokens=5,
                stream=True,
            )
            assert [chunk async for chunk in chat]
            with pytest.raises(openai.PermissionDeniedError, match=OTHER):
                await client.embeddings.create(model=OTHER, input="one")

    asyncio.run(run())


def test_openai_is_told_that_another_model_is_not_its_own(oai: openai.OpenAI, ollama: Ollama) -> None:
    hello: Any = messages("Hi")
    for attempt in (
        lambda: oai.chat.completions.create(model=OTHER, messages=hello),
        lambda: oai.chat.completions.create(model=OTHER, messages=hello, stream=True),
        lambda: oai.completions.create(model=OTHER, prompt="Hi"),
        lambda: oai.responses.create(model=OTHER, input="Hi"),
        lambda: oai.embeddings.create(model=OTHER, input="Hi"),
        lambda: oai.models.retrieve(OTHER),
        lambda: oai.chat.completions.create(model=f"{ollama.model}-cloud", messages=hello),
    ):
        with pytest.raises(openai.PermissionDeniedError, match="this key may not use the model") as raised:
            attempt()
        assert raised.value.code == "model_denied"


# anthropic


@pytest.fixture
def claude(trusted: str, limited: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=trusted, api_key=limited)


def test_anthropic_asks_its_model(claude: anthropic.Anthropic, ollama: Ollama) -> None:
    system: Any = [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}]
    with claude.messages.stream(
        model=ollama.model, max_tokens=5, system=system, messages=[{"role": "user", "content": TEXT}]
    ) as stream:
        assert "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens == 5


def test_anthropic_brings_tools(claude: anthropic.Anthropic, tool_model: str) -> None:
    used = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"model": TEXT}}
    told = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": TEXT}]}
    history: Any = [
        {"role": "user", "content": [{"type": "text", "text": TEXT}]},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [told]},
    ]
    tools: Any = [{"name": "weather", "description": TEXT, "input_schema": SCHEMA}]
    answer = claude.messages.create(
        model=tool_model, max_tokens=8, messages=history, tools=tools, tool_choice={"type": "auto"}
    )
    assert answer.content


def test_anthropic_asks_asynchronously(trusted: str, limited: str, ollama: Ollama) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=trusted, api_key=limited) as client:
            answer = await client.messages.create(
                model=ollama.model, max_tokens=5, messages=[{"role": "user", "content": TEXT}]
            )
            assert answer.usage.output_tokens == 5

    asyncio.run(run())


def test_anthropic_is_told_that_another_model_is_not_its_own(
    claude: anthropic.Anthropic, ollama: Ollama
) -> None:
    hello: Any = [{"role": "user", "content": "Hi"}]
    for model in (OTHER, f"{ollama.model}-cloud"):
        with pytest.raises(anthropic.PermissionDeniedError, match="this key may not use the model"):
            claude.messages.create(model=model, max_tokens=1, messages=hello)
        with (
            pytest.raises(anthropic.PermissionDeniedError, match="this key may not use the model"),
            claude.messages.stream(model=model, max_tokens=1, messages=hello),
        ):
            pass


def test_anthropic_is_told_that_a_web_search_is_the_servers(
    claude: anthropic.Anthropic, tool_model: str
) -> None:
    """Ollama would make it with the server's account."""
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    with pytest.raises(anthropic.PermissionDeniedError, match="account"):
        claude.messages.create(
            model=tool_model, max_tokens=1, messages=[{"role": "user", "content": "Hi"}], tools=tools
        )


# LangChain


def test_langchain_ollama_asks_its_model(trusted: str, limited: str, ollama: Ollama, tool_model: str) -> None:
    # The key as the password of the URL; it is sent as Basic.
    url = trusted.replace("https://", f"https://any:{limited}@")
    chat = ChatOllama(model=ollama.model, base_url=url, num_predict=5)
    assert chat.invoke([HumanMessage(TEXT)]).content
    assert [part for part in chat.stream(TEXT) if part.content]
    assert asyncio.run(chat.ainvoke(TEXT)).content
    tools = ChatOllama(model=tool_model, base_url=url).bind_tools([Weather])
    assert tools.invoke(TEXT).content
    shaped = ChatOllama(model=ollama.model, base_url=url, num_predict=60, temperature=0)
    answer = shaped.with_structured_output(SCHEMA, method="json_schema", include_raw=True).invoke("Hi")
    assert answer["raw"].content.lstrip().startswith("{")
    assert len(OllamaEmbeddings(model=ollama.model, base_url=url).embed_documents([TEXT, "two"])) == 2


def test_langchain_openai_asks_its_model(trusted: str, limited: str, ollama: Ollama, tool_model: str) -> None:
    def chat(model: str) -> ChatOpenAI:
        return ChatOpenAI(model=model, base_url=f"{trusted}/v1", api_key=limited, max_tokens=5)  # type: ignore[arg-type, call-arg]

    assert chat(ollama.model).invoke([HumanMessage(TEXT)]).content
    assert [part for part in chat(ollama.model).stream(TEXT) if part.content]
    assert asyncio.run(chat(ollama.model).ainvoke(TEXT)).content
    assert chat(tool_model).bind_tools([Weather]).invoke(TEXT).content
    shaped = chat(ollama.model).with_structured_output(SCHEMA | {"title": "w"}, include_raw=True)
    assert shaped.invoke("Hi")["raw"].content.lstrip().startswith("{")
    embeddings = OpenAIEmbeddings(
        model=ollama.model,
        base_url=f"{trusted}/v1",
        api_key=limited,  # type: ignore[arg-type]
        check_embedding_ctx_length=False,
    )
    assert len(embeddings.embed_documents([TEXT, "two"])) == 2


def test_langchain_is_told_that_another_model_is_not_its_own(trusted: str, limited: str) -> None:
    headers = {"headers": {"Authorization": f"Bearer {limited}"}}
    with pytest.raises(package.ResponseError, match="this key may not use the model"):
        ChatOllama(model=OTHER, base_url=trusted, client_kwargs=headers).invoke("Hi")
    with pytest.raises(openai.PermissionDeniedError, match="this key may not use the model"):
        ChatOpenAI(model=OTHER, base_url=f"{trusted}/v1", api_key=limited).invoke("Hi")  # type: ignore[arg-type]


# Keys that have no limit


def test_every_key_without_the_grant_is_told_that_the_cloud_is_not_its_own(
    trusted: str, keys: Any, ollama: Ollama
) -> None:
    name = f"{ollama.model}-cloud"
    native = package.Client(trusted, headers={"Authorization": f"Bearer {keys.default}"})
    with pytest.raises(package.ResponseError, match="cloud") as raised:
        native.chat(name, messages("Hi"))
    assert raised.value.status_code == 403
    with pytest.raises(openai.PermissionDeniedError, match="cloud") as refused:
        openai.OpenAI(base_url=f"{trusted}/v1", api_key=keys.default).responses.create(model=name, input="Hi")
    assert refused.value.code == "cloud_denied"
    with pytest.raises(anthropic.PermissionDeniedError, match="cloud"):
        anthropic.Anthropic(base_url=trusted, api_key=keys.default).messages.create(
            model=name, max_tokens=1, messages=[{"role": "user", "content": "Hi"}]
        )
