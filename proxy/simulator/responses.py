"""OpenAI's Responses route as Ollama offers it: /v1/responses."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator

from starlette.responses import Response

from proxy.simulator import text
from proxy.simulator.body import Body
from proxy.simulator.errors import OllamaError
from proxy.simulator.generation import Generation, Simulation
from proxy.simulator.go_json import encode, json_line_response
from proxy.simulator.live import Chunks
from proxy.simulator.models import wanted

# Ollama sets these two itself on the routes whose events have names.
NAMED_EVENT_STREAM = {
    "cache-control": "no-cache",
    "connection": "keep-alive",
    "content-type": "text/event-stream",
}

Members = dict[str, object]


async def responses(simulation: Simulation, body: Body) -> Response:
    named, prompt = body.text("model"), body.value("input")
    if not named:
        raise OllamaError(400, "model is required")
    model = wanted(simulation.catalogue, named)
    instructions = [{"content": body.text("instructions")}] if body.text("instructions") else []
    messages = prompt if isinstance(prompt, list) else [{"content": prompt}] if prompt else []
    limit = body.integer("max_output_tokens")
    generation = Generation(simulation, model, text.count_messages(instructions + messages), limit)
    identifiers = f"resp_{secrets.randbelow(999999)}", f"msg_{secrets.randbelow(999999)}"
    if body.flag("stream", False):
        return Chunks(_events(simulation, body, generation, *identifiers), NAMED_EVENT_STREAM)
    if generation.prompt_tokens:
        with simulation.counted():
            content = await generation.whole()
    else:
        content = ""
        await generation.load()
    output = _item(identifiers[1], "completed", [_part(content)])
    return json_line_response(_response(identifiers[0], body, [output], generation))


async def _events(
    simulation: Simulation, body: Body, generation: Generation, response_id: str, message_id: str
) -> AsyncGenerator[bytes, None]:
    number = 0

    def event(kind: str, members: Members) -> bytes:
        nonlocal number
        data = members | {"sequence_number": number, "type": kind}
        number += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), encode(data, sort_keys=True))

    item = {"output_index": 0}
    place = {"content_index": 0, "item_id": message_id, "output_index": 0}
    pieces: list[str] = []
    begun: Members = {"response": _response(response_id, body, [])}
    if not generation.prompt_tokens:  # nothing to answer: the model is only loaded
        await generation.load()
        yield event("response.created", begun)
        yield event("response.in_progress", begun)
        yield event("response.completed", {"response": _response(response_id, body, None, generation)})
        return
    try:
        with simulation.counted():
            async for token in generation.tokens():
                if not pieces:
                    yield event("response.created", begun)
                    yield event("response.in_progress", begun)
                    started = _item(message_id, "in_progress", [])
                    yield event("response.output_item.added", item | {"item": started})
                    yield event("response.content_part.added", place | {"part": _part("")})
                pieces.append(token)
                yield event("response.output_text.delta", place | {"delta": token, "logprobs": []})
            whole = "".join(pieces)
            output = _item(message_id, "completed", [_part(whole)])
            yield event("response.output_text.done", place | {"text": whole, "logprobs": []})
            yield event("response.content_part.done", place | {"part": _part(whole)})
            yield event("response.output_item.done", item | {"item": output})
            finished = _response(response_id, body, [output], generation)
            yield event("response.completed", {"response": finished})
    except OllamaError:
        return  # Ollama loses the error text here: the events just stop before response.completed


def _part(content: str) -> Members:
    return {"type": "output_text", "text": content, "annotations": [], "logprobs": []}


def _item(identifier: str, status: str, content: list[Members]) -> Members:
    head = {"id": identifier, "type": "message", "status": status, "role": "assistant"}
    return head | {"content": content}


def _response(
    identifier: str, body: Body, output: list[Members] | None, generation: Generation | None = None
) -> Members:
    """The response object: in progress without `generation`, completed with it."""
    now = int(time.time())
    return {
        "id": identifier,
        "object": "response",
        "created_at": now,
        "completed_at": now if generation else None,
        "status": "completed" if generation else "in_progress",
        "incomplete_details": None,
        "model": body.text("model"),
        "previous_response_id": None,
        "instructions": body.text("instructions") or None,
        "output": output,
        "error": None,
        "tools": body.value("tools") or [],
        "tool_choice": "auto",
        "truncation": "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "top_p": body.value("top_p") or 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": body.value("temperature") if "temperature" in body else 1,
        "reasoning": None,
        "usage": _usage(generation) if generation else None,
        "max_output_tokens": body.value("max_output_tokens"),
        "max_tool_calls": None,
        "store": False,
        "background": False,
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _usage(generation: Generation) -> Members:
    return {
        "input_tokens": generation.prompt_tokens,
        "output_tokens": generation.output_tokens,
        "total_tokens": generation.prompt_tokens + generation.output_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
