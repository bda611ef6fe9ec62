"""Anthropic's route as Ollama offers it: /v1/messages."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator

from starlette.responses import Response

from proxy.simulator import text
from proxy.simulator.body import Body
from proxy.simulator.errors import MalformedError, OllamaError
from proxy.simulator.generation import Generation, Simulation
from proxy.simulator.go_json import encode, json_line_response
from proxy.simulator.live import Chunks
from proxy.simulator.models import wanted
from proxy.simulator.responses import NAMED_EVENT_STREAM

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


async def messages(simulation: Simulation, body: Body) -> Response:
    conversation = body.items("messages", "[]anthropic.MessageParam")
    limit = body.integer("max_tokens")
    if not body.text("model"):
        raise MalformedError("model is required")
    if limit <= 0:
        raise MalformedError("max_tokens is required and must be positive")
    if not conversation:
        raise MalformedError("messages is required")
    model = wanted(simulation.catalogue, body.text("model"))
    system = [{"content": body.value("system")}] if "system" in body else []
    generation = Generation(simulation, model, text.count_messages(system + conversation), limit)
    if body.flag("stream", False):
        return Chunks(_events(simulation, body.text("model"), generation), NAMED_EVENT_STREAM)
    with simulation.counted():
        content = await generation.whole()
    message = _message(body.text("model"), [{"type": "text", "text": content}])
    reason = {"stop_reason": _STOP_REASONS[generation.done_reason]}
    return json_line_response(message | reason | {"usage": _usage(generation)})


async def _events(simulation: Simulation, named: str, generation: Generation) -> AsyncGenerator[bytes, None]:
    first = True
    try:
        with simulation.counted():
            async for token in generation.tokens():
                if first:
                    first = False
                    usage = {"input_tokens": generation.prompt_tokens, "output_tokens": 0}
                    yield _event("message_start", {"message": _message(named, []) | {"usage": usage}})
                    block = {"type": "text", "text": ""}
                    yield _event("content_block_start", {"index": 0, "content_block": block})
                delta = {"type": "text_delta", "text": token}
                yield _event("content_block_delta", {"index": 0, "delta": delta})
            yield _event("content_block_stop", {"index": 0})
            reason = {"stop_reason": _STOP_REASONS[generation.done_reason]}
            yield _event("message_delta", {"delta": reason, "usage": _usage(generation)})
            yield _event("message_stop", {})
    except OllamaError:
        return  # Ollama loses the error text here: the events just stop before message_stop


def _message(named: str, content: list[dict[str, str]]) -> dict[str, object]:
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": named}
    return head | {"content": content}


def _usage(generation: Generation) -> dict[str, int]:
    return {"input_tokens": generation.prompt_tokens, "output_tokens": generation.output_tokens}


def _event(kind: str, members: dict[str, object]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), encode({"type": kind} | members))
