"""The OpenAI routes that Ollama offers: /v1/chat/completions, /v1/completions, /v1/embeddings."""

from __future__ import annotations

import base64
import secrets
import struct
import time
from collections.abc import AsyncGenerator

from starlette.responses import Response

from proxy.simulator import text
from proxy.simulator.body import Body
from proxy.simulator.errors import MalformedError, OllamaError
from proxy.simulator.generation import Generation, Simulation
from proxy.simulator.go_json import encode, json_line_response
from proxy.simulator.live import Chunks
from proxy.simulator.models import wanted
from proxy.simulator.native import inputs_of, wanted_for_embedding

EVENT_STREAM = {"content-type": "text/event-stream"}

Chunk = dict[str, object]


async def chat_completions(simulation: Simulation, body: Body) -> Response:
    named, messages = body.text("model"), body.items("messages", "[]openai.Message")
    if not messages:
        raise MalformedError("[] is too short - 'messages'")
    if not named:
        raise OllamaError(400, "model is required")
    model = wanted(simulation.catalogue, named)
    limit = body.integer("max_tokens") or body.integer("max_completion_tokens")
    generation = Generation(simulation, model, text.count_messages(messages), limit)
    if body.flag("stream", False):
        return Chunks(_chat_events(simulation, body, generation), EVENT_STREAM)
    with simulation.counted():
        content = await generation.whole()
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": generation.done_reason}
    head = _chat_head("chat.completion", f"chatcmpl-{secrets.randbelow(999)}", body)
    return json_line_response(head | {"choices": [choice], "usage": usage(generation)})


async def _chat_events(
    simulation: Simulation, body: Body, generation: Generation
) -> AsyncGenerator[bytes, None]:
    identifier = f"chatcmpl-{secrets.randbelow(999)}"

    def chunk(choices: list[object]) -> Chunk:
        return _chat_head("chat.completion.chunk", identifier, body) | {"choices": choices}

    def choice(content: str, finish_reason: str | None) -> list[object]:
        delta = {"role": "assistant", "content": content}
        return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]

    try:
        with simulation.counted():
            async for token in generation.tokens():
                yield _data(chunk(choice(token, None)))
            yield _data(chunk(choice("", generation.done_reason)))
            if _usage_wanted(body):
                yield _data(chunk([]) | {"usage": usage(generation)})
            yield _DONE
    except OllamaError:
        # Ollama's middleware takes the error line for an empty chunk, and the text is lost.
        yield _data(chunk(choice("", None)) | {"model": ""})


async def completions(simulation: Simulation, body: Body) -> Response:
    prompt = _prompt(body)
    model = wanted(simulation.catalogue, body.text("model"))
    generation = Generation(
        simulation, model, text.count(prompt) if prompt else 0, body.integer("max_tokens")
    )
    if body.flag("stream", False):
        events = _completion_events(simulation, body, generation, prompt)
        if prompt:
            return Chunks(events, EVENT_STREAM)
        return Response(b"".join([event async for event in events]), headers=EVENT_STREAM)
    if prompt:
        with simulation.counted():
            content = await generation.whole()
    else:
        content = ""
        await _load(generation)
    choice = {"text": content, "index": 0, "finish_reason": generation.done_reason}
    head = {"id": f"cmpl-{secrets.randbelow(999)}", "object": "text_completion", "created": int(time.time())}
    middle = {"model": body.text("model"), "system_fingerprint": "fp_ollama", "choices": [choice]}
    return json_line_response(head | middle | {"usage": usage(generation)})


async def _completion_events(
    simulation: Simulation, body: Body, generation: Generation, prompt: str
) -> AsyncGenerator[bytes, None]:
    identifier = f"cmpl-{secrets.randbelow(999)}"
    with_usage = _usage_wanted(body)
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

    def chunk(
        choices: list[object], counted: dict[str, int] = nothing, model: str = body.text("model")
    ) -> Chunk:
        head = {
            "id": identifier,
            "object": "text_completion",
            "created": int(time.time()),
            "choices": choices,
        }
        tail: Chunk = {"model": model, "system_fingerprint": "fp_ollama"}
        return head | tail | ({"usage": counted} if with_usage else {})

    def choice(content: str, finish_reason: str | None) -> list[object]:
        return [{"text": content, "index": 0, "finish_reason": finish_reason}]

    try:
        if prompt:
            with simulation.counted():
                async for token in generation.tokens():
                    yield _data(chunk(choice(token, None)))
        else:
            await _load(generation)
        yield _data(chunk(choice("", generation.done_reason)))
        if with_usage:
            yield _data(chunk([], usage(generation)))
        yield _DONE
    except OllamaError:
        yield _data(chunk(choice("", None), model=""))


async def embeddings(simulation: Simulation, body: Body) -> Response:
    named, inputs = body.text("model"), inputs_of(body)
    if not inputs:
        raise MalformedError("invalid input")
    model = wanted_for_embedding(simulation, body)
    if inputs == [""]:
        raise OllamaError(500, "Failed to create new sequence: no input provided")
    tokens = sum(text.count(item) for item in inputs)
    await Generation(simulation, model, tokens).load()
    vectors = [text.embedding(item, body.integer("dimensions")) for item in inputs]
    shown = [_base64(vector) for vector in vectors] if body.text("encoding_format") == "base64" else vectors
    data = [{"object": "embedding", "embedding": each, "index": index} for index, each in enumerate(shown)]
    counted = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_line_response({"object": "list", "data": data, "model": named, "usage": counted})


def usage(generation: Generation) -> dict[str, int]:
    prompt, output = generation.prompt_tokens, generation.output_tokens
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


async def _load(generation: Generation) -> None:
    """What an empty prompt does: the model is loaded, and the reason says so."""
    generation.done_reason = "load"
    await generation.load()


def _prompt(body: Body) -> str:
    value = body.value("prompt")
    if isinstance(value, list):
        return " ".join(item for item in value if isinstance(item, str))
    return body.text("prompt")


def _usage_wanted(body: Body) -> bool:
    return body.mapping("stream_options").get("include_usage") is True


def _chat_head(kind: str, identifier: str, body: Body) -> Chunk:
    return {
        "id": identifier,
        "object": kind,
        "created": int(time.time()),
        "model": body.text("model"),
        "system_fingerprint": "fp_ollama",
    }


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _data(value: object) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


_DONE = b"data: [DONE]\n\n"
