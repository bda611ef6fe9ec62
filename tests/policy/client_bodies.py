"""What real clients send: recorded where they would have sent it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import requests

from .reader import Sent

URL = "http://ollama.test"
MODEL = "smollm2"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc00000030101"
    "00c9fe92ef0000000049454e44ae426082"
)
TEXT = "Grüße, 世界 🦙👩‍👩‍👧 \u2028 \\ \" \x7f {'model': 'sekret:cloud'} https://cloud.example/?a=\\u0063"
SCHEMA = {
    "type": "object",
    "properties": {"model": {"type": "string"}, "Model": {"type": "integer"}, "tools": {"type": "array"}},
    "required": ["model"],
}
PARAMETERS = {"type": "object", "properties": {"query": {"type": "string", "description": TEXT}}}
FUNCTION = {
    "type": "function",
    "function": {"name": "web_search", "description": "Search the cloud", "parameters": PARAMETERS},
}


class Recorded(NamedTuple):
    what: str
    sent: Sent


class Recorder:
    """Stands where the network would be, answers that it is not there, and keeps what came."""

    def __init__(self, http: Any = httpx) -> None:
        self._http = http
        self.transport = http.MockTransport(self._answer)
        self.found: list[Recorded] = []
        self._what = ""

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """One call of a client; it fails, as nobody answers it."""
        before, self._what = len(self.found), what
        try:
            yield
        except Exception as error:
            assert "nobody is here" in str(error), error  # noqa: PT017
        assert len(self.found) == before + 1, f"{what}: not one request"

    def _answer(self, request: Any) -> Any:
        self.keep(request.method, request.url.path, request.headers.get("content-type", ""), request.read())
        return self._http.Response(418, json={"error": {"message": "nobody is here", "type": "x"}})

    def keep(self, method: str, path: str, content_type: str, body: bytes) -> None:
        self.found.append(Recorded(self._what, Sent(f"{method} {path}", body, content_type)))


def ollama_python() -> list[Recorded]:
    from ollama import Client, Options

    recorder = Recorder()
    client = Client(host=URL, transport=recorder.transport)

    def search(query: str) -> str:
        """Search the web.

        Args:
            query: what for
        """
        return query

    asked: list[dict[str, Any]] = [
        {"role": "system", "content": TEXT},
        {"role": "user", "content": TEXT, "images": [PIXEL]},
        {
            "role": "assistant",
            "content": "",
            "thinking": TEXT,
            "tool_calls": [{"function": {"name": "search", "arguments": {"query": TEXT, "model": "x"}}}],
        },
        {"role": "tool", "content": TEXT, "tool_name": "search"},
    ]
    calls: dict[str, Callable[[], object]] = {
        "chat": lambda: client.chat(MODEL, asked),
        "chat, streamed": lambda: list(client.chat(MODEL, asked, stream=True, think=True, keep_alive="10m")),
        "chat with tools": lambda: client.chat(MODEL, asked, tools=[search, FUNCTION], think="high"),
        "chat by a schema": lambda: client.chat(MODEL, asked, format=SCHEMA, keep_alive=300),
        "chat with options": lambda: client.chat(
            MODEL,
            asked,
            options={"num_ctx": 4096, "temperature": 0.1, "stop": ["\n", "🦙"], "num_predict": 100},
        ),
        "chat with typed options": lambda: client.chat(MODEL, asked, options=Options(num_ctx=4096, seed=1)),
        "chat in the cloud": lambda: client.chat("gpt-oss:120b-cloud", asked),
        "load": lambda: client.generate(MODEL),
        "unload": lambda: client.generate(MODEL, keep_alive=0),
        "generate": lambda: client.generate(
            MODEL,
            TEXT,
            suffix=TEXT,
            system=TEXT,
            template="{{ .Prompt }}",
            context=[1, 2],
            images=[PIXEL],
            raw=True,
        ),
        "generate, streamed": lambda: list(client.generate(MODEL, TEXT, stream=True, format="json")),
        "embed": lambda: client.embed(MODEL, [TEXT, "two"], truncate=True, dimensions=64, keep_alive=-1),
        "embeddings": lambda: client.embeddings(MODEL, TEXT, options={"num_ctx": 2048}),
        "pull": lambda: client.pull(MODEL),
        "pull, streamed": lambda: list(client.pull("acme/" + MODEL, stream=True, insecure=True)),
        "push": lambda: client.push("acme/" + MODEL),
        "create": lambda: client.create(
            "acme/helper",
            from_=MODEL,
            system=TEXT,
            template="{{ .Prompt }}",
            license=["MIT", TEXT],
            parameters={"num_ctx": 4096, "stop": ["a", "b"], "temperature": 0.5},
            messages=[{"role": "user", "content": TEXT}],
            quantize="q4_K_M",
        ),
        "create from files": lambda: client.create(
            "acme/helper",
            files={"model.gguf": "sha256:" + "0" * 64},
            adapters={"a.gguf": "sha256:" + "1" * 64},
        ),
        "create in the cloud": lambda: client.create("acme/helper", from_="gpt-oss:cloud"),
        "copy": lambda: client.copy(MODEL, "acme/" + MODEL),
        "delete": lambda: client.delete(MODEL),
        "show": lambda: client.show(MODEL),
    }
    for what, send in calls.items():
        with recorder.call(what):
            send()
    return recorder.found


def openai_python() -> list[Recorded]:
    from openai import OpenAI

    recorder = Recorder()
    http = httpx.Client(transport=recorder.transport)
    client = OpenAI(base_url=f"{URL}/v1", api_key="x", http_client=http, max_retries=0)
    data = "data:image/png;base64,iVBORw0KGgo="
    asked: Any = [
        {"role": "developer", "content": TEXT},
        {
            "role": "user",
            "content": [{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": data}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "web_search", "arguments": '{"a":"\\ud83d"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": TEXT},
    ]
    flat: Any = {"type": "function", "strict": True, **FUNCTION["function"]}  # type: ignore[dict-item]
    items: Any = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": TEXT}, {"type": "input_image", "image_url": data}],
        },
        {"type": "function_call", "call_id": "1", "name": "web_search", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": TEXT},
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": TEXT},
    ]
    schema: Any = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    chat, answers, audio = client.chat.completions, client.responses, client.audio.transcriptions
    calls: dict[str, Callable[[], object]] = {
        "chat": lambda: chat.create(model=MODEL, messages=asked),
        "chat, streamed": lambda: list(
            chat.create(
                model=MODEL, messages=asked, stream=True, stream_options={"include_usage": True}, max_tokens=9
            )
        ),
        "chat with tools": lambda: chat.create(
            model=MODEL,
            messages=asked,
            tools=[FUNCTION],  # type: ignore[list-item]
            tool_choice={"type": "function", "function": {"name": "web_search"}},
            parallel_tool_calls=False,
        ),
        "chat by a schema": lambda: chat.create(
            model=MODEL,
            messages=asked,
            response_format=schema,
            reasoning_effort="low",
            max_completion_tokens=100,
        ),
        "chat with all kinds of numbers": lambda: chat.create(
            model=MODEL,
            messages=asked,
            temperature=1e-07,
            top_p=1,
            seed=-1,
            n=1,
            logit_bias={"50256": -100},
            user=TEXT,
        ),
        "chat in the cloud": lambda: chat.create(model="gpt-oss:120b-cloud", messages=asked),
        "completion": lambda: client.completions.create(
            model=MODEL, prompt=TEXT, suffix=TEXT, max_tokens=5, stop=["\n"]
        ),
        "embeddings": lambda: client.embeddings.create(model=MODEL, input=[TEXT, "two"]),
        "response": lambda: answers.create(model=MODEL, input=TEXT, instructions=TEXT, max_output_tokens=100),
        "response with tools": lambda: answers.create(
            model=MODEL, input=items, tools=[flat], include=["reasoning.encrypted_content"], store=False
        ),
        "response by a schema, streamed": lambda: list(
            answers.create(
                model=MODEL,
                input=items,
                stream=True,
                reasoning={"effort": "medium", "summary": "auto"},
                text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
            )
        ),
        "response that searches": lambda: answers.create(
            model=MODEL, input=TEXT, tools=[{"type": "web_search"}]
        ),
        "transcription": lambda: audio.create(model=MODEL, file=("a.wav", PIXEL), response_format="text"),
        "transcription of a strange file": lambda: audio.create(
            model=MODEL,
            file=('größe "1" 🦙.wav', PIXEL, "audio/x-wav"),
            language="de",
            prompt=TEXT.replace("\r", ""),
        ),
        "transcription with lists": lambda: audio.create(
            model=MODEL,
            file=PIXEL,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            temperature=0.5,
        ),
    }
    for what, send in calls.items():
        with recorder.call(what):
            send()
    return recorder.found


def anthropic_python() -> list[Recorded]:
    import httpx2
    from anthropic import Anthropic

    recorder = Recorder(httpx2)
    http = httpx2.Client(transport=recorder.transport)
    client: Any = Anthropic(base_url=URL, api_key="x", http_client=http, max_retries=0)
    own = {"name": "web_search", "description": TEXT, "input_schema": PARAMETERS}
    typed = {
        "type": "custom",
        "name": "web_fetch",
        "input_schema": PARAMETERS,
        "cache_control": {"type": "ephemeral"},
    }
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    asked = [
        {
            "role": "user",
            "content": [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}, image],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": TEXT, "signature": "c2ln"},
                {
                    "type": "tool_use",
                    "id": "toolu_1",
                    "name": "web_search",
                    "input": {"query": TEXT, "tools": 1},
                },
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": TEXT}]},
    ]

    def create(**more: Any) -> object:
        return client.messages.create(**{"model": MODEL, "max_tokens": 100, "messages": asked, **more})

    searching = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    calls: dict[str, Callable[[], object]] = {
        "message": create,
        "message with own tools": lambda: create(tools=[own, typed], tool_choice={"type": "auto"}),
        "message, streamed": lambda: list(create(stream=True, system=[{"type": "text", "text": TEXT}])),  # type: ignore[call-overload]
        "message with thinking": lambda: create(
            thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=4096
        ),
        "message with more": lambda: create(
            metadata={"user_id": TEXT},
            stop_sequences=["\n", "🦙"],
            extra_body={"temperature": 0.0, "top_k": 5},
        ),
        "message that searches": lambda: create(tools=[own, searching]),
        "message in the cloud": lambda: create(model="gpt-oss:120b-cloud"),
    }
    for what, send in calls.items():
        with recorder.call(what):
            send()
    return recorder.found


def langchain() -> list[Recorded]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    recorder = Recorder()
    http = httpx.Client(transport=recorder.transport)
    native: dict[str, Any] = {
        "model": MODEL,
        "base_url": URL,
        "client_kwargs": {"transport": recorder.transport},
    }
    openai: dict[str, Any] = {
        "model": MODEL,
        "base_url": f"{URL}/v1",
        "api_key": "x",
        "http_client": http,
        "max_retries": 0,
    }
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    asked = [
        SystemMessage(TEXT),
        HumanMessage([{"type": "text", "text": TEXT}, picture]),
        AIMessage("", tool_calls=[{"name": "web_search", "args": {"query": TEXT}, "id": "1"}]),
        ToolMessage(TEXT, tool_call_id="1"),
    ]
    chat = ChatOllama(
        **native, num_ctx=4096, num_predict=100, keep_alive="5m", reasoning=True, temperature=0.1, stop=["\n"]
    )
    other = ChatOpenAI(**openai, max_tokens=100, temperature=0.1)
    calls: dict[str, Callable[[], object]] = {
        "ChatOllama": lambda: ChatOllama(**native).invoke(asked),
        "ChatOllama with options": lambda: chat.invoke(asked),
        "ChatOllama, streamed": lambda: list(chat.stream(asked)),
        "ChatOllama with tools": lambda: chat.bind_tools([FUNCTION]).invoke(asked),
        "ChatOllama by a schema": lambda: chat.with_structured_output({**SCHEMA, "title": "x"}).invoke(asked),
        "OllamaLLM": lambda: OllamaLLM(**native, keep_alive=300, num_predict=10).invoke(TEXT),
        "OllamaEmbeddings": lambda: OllamaEmbeddings(**native, num_ctx=2048).embed_documents([TEXT, "two"]),
        "ChatOpenAI": lambda: other.invoke(asked),
        "ChatOpenAI, streamed": lambda: list(other.stream(asked)),
        "ChatOpenAI with tools": lambda: other.bind_tools([FUNCTION]).invoke(asked),
        "ChatOpenAI by responses": lambda: ChatOpenAI(**openai, use_responses_api=True).invoke(asked),
        "OpenAIEmbeddings": lambda: OpenAIEmbeddings(**openai, check_embedding_ctx_length=False).embed_query(
            TEXT
        ),
    }
    for what, send in calls.items():
        with recorder.call(what):
            send()
    return recorder.found


def javascript() -> list[Recorded]:
    """As JSON.stringify writes texts that were cut in two: half a pair of surrogates, as an escape.

    requests writes all that is not ASCII so, and a half too.
    """
    recorder = Recorder()

    def post(what: str, path: str, **body: object) -> None:
        sent = requests.Request("POST", URL + path, json=body).prepare()
        assert isinstance(sent.body, bytes)
        assert b"\\ud83e" in sent.body
        with recorder.call(what):
            recorder.keep("POST", path, sent.headers["Content-Type"], sent.body)

    cut = "\ud83e"
    asked = [{"role": "user", "content": TEXT + cut}, {"role": "assistant", "content": cut}]
    post("chat with half a letter", "/api/chat", model=MODEL, messages=asked, stream=False)
    post("generate with half a letter", "/api/generate", model=MODEL, prompt=cut, options={"stop": [cut]})
    post("OpenAI chat with half a letter", "/v1/chat/completions", model=MODEL, messages=asked)
    post("response with half a letter", "/v1/responses", model=MODEL, input=cut)
    post("message with half a letter", "/v1/messages", model=MODEL, messages=asked, max_tokens=5)
    post("embeddings of half a letter", "/v1/embeddings", model=MODEL, input=[cut])
    return recorder.found


Client = Callable[[], list[Recorded]]
CLIENTS: tuple[Client, ...] = (
    ollama_python,
    openai_python,
    anthropic_python,
    langchain,
    javascript,
)
