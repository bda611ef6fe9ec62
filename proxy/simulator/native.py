"""Ollama's own inference routes: /api/generate, /api/chat, /api/embed, /api/embeddings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response

from proxy.simulator import text
from proxy.simulator.body import Body
from proxy.simulator.errors import OllamaError
from proxy.simulator.generation import Generation, Simulation
from proxy.simulator.go_json import encode, json_response, timestamp
from proxy.simulator.live import Chunks
from proxy.simulator.models import Model, wanted

NDJSON = {"content-type": "application/x-ndjson"}

# The members that carry a piece of text: `response` of generate, `message` of chat.
Carrier = Callable[[str], dict[str, object]]


async def generate(simulation: Simulation, body: Body) -> Response:
    prompt = body.text("prompt")
    with_context = not body.flag("raw", False)
    return await _answer(simulation, body, text.count(prompt) if prompt else 0, _response, with_context)


async def chat(simulation: Simulation, body: Body) -> Response:
    messages = body.items("messages", "[]api.Message")
    if not body.text("model"):
        raise OllamaError(400, "model is required")
    return await _answer(simulation, body, text.count_messages(messages), _message, with_context=False)


async def embed(simulation: Simulation, body: Body) -> Response:
    inputs = inputs_of(body)
    if inputs == [""]:
        inputs = []
    model = wanted_for_embedding(simulation, body)
    tokens = sum(text.count(item) for item in inputs)
    generation = Generation(simulation, model, tokens, keep_alive=body.seconds("keep_alive"))
    await generation.load()
    answer: dict[str, object] = {"model": body.text("model")}
    answer["embeddings"] = [text.embedding(item, body.integer("dimensions")) for item in inputs]
    return json_response(answer | (generation.metrics() if inputs else {}))


async def embeddings(simulation: Simulation, body: Body) -> Response:
    prompt = body.text("prompt")
    if not body.text("model"):
        raise OllamaError(400, "model is required")
    model = wanted_for_embedding(simulation, body)
    await Generation(simulation, model, 0, keep_alive=body.seconds("keep_alive")).load()
    return json_response({"embedding": text.embedding(prompt) if prompt else []})


def wanted_for_embedding(simulation: Simulation, body: Body) -> Model:
    return wanted(simulation.catalogue, body.text("model"), 'model "{}" not found, try pulling it first')


def inputs_of(body: Body) -> list[str]:
    """The member `input`: a string or a list of strings."""
    value = body.value("input")
    items = value if isinstance(value, list) else [] if value is None else [value]
    inputs = [item for item in items if isinstance(item, str)]
    if len(inputs) != len(items):
        raise OllamaError(400, "invalid input type")
    return inputs


async def _answer(
    simulation: Simulation, body: Body, prompt_tokens: int, carrier: Carrier, with_context: bool
) -> Response:
    named, stream, keep_alive = body.text("model"), body.flag("stream", True), body.seconds("keep_alive")
    limit = body.mapping("options").get("num_predict")
    most = int(limit) if isinstance(limit, int | float) else 0
    model = wanted(simulation.catalogue, named)
    generation = Generation(simulation, model, prompt_tokens, most, keep_alive)
    if not prompt_tokens:  # nothing to answer: load or unload the model, and say so in one object
        if keep_alive == 0:
            simulation.catalogue.keep_loaded(model, 0)
            return json_response(_done(named, "", "unload", carrier))
        await generation.load()
        return json_response(_done(named, "", "load", carrier))
    if stream:
        return Chunks(_lines(simulation, named, generation, carrier, with_context), NDJSON)
    with simulation.counted():
        whole = await generation.whole()
    return json_response(_last(named, whole, generation, carrier, with_context))


async def _lines(
    simulation: Simulation, named: str, generation: Generation, carrier: Carrier, with_context: bool
) -> AsyncGenerator[bytes, None]:
    try:
        with simulation.counted():
            async for token in generation.tokens():
                yield _line({"model": named, "created_at": timestamp(), **carrier(token), "done": False})
            yield _line(_last(named, "", generation, carrier, with_context))
    except OllamaError as error:
        yield _line({"error": error.message})


def _last(
    named: str, content: str, generation: Generation, carrier: Carrier, with_context: bool
) -> dict[str, object]:
    done = _done(named, content, generation.done_reason, carrier)
    if with_context:
        done["context"] = text.context(generation.prompt_tokens + generation.output_tokens)
    return done | generation.metrics()


def _done(named: str, content: str, reason: str, carrier: Carrier) -> dict[str, object]:
    head: dict[str, object] = {"model": named, "created_at": timestamp()}
    return head | carrier(content) | {"done": True, "done_reason": reason}


def _response(content: str) -> dict[str, object]:
    return {"response": content}


def _message(content: str) -> dict[str, object]:
    return {"message": {"role": "assistant", "content": content}}


def _line(value: object) -> bytes:
    return encode(value) + b"\n"
