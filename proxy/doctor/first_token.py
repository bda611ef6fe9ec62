"""How long a tiny request waits for its first token, straight from Ollama. `choose` and `judge` are pure."""

from __future__ import annotations

import asyncio
import json
import time
from typing import NamedTuple

import httpx

from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.doctor.upstream import Model, Seen

PATIENCE = 60.0
"""Seconds for the first token; a large cold model takes longer."""

SLOW = 10.0
"""Seconds that a model which is loaded should not need."""

MODELS = 5
"""So many are asked whether they can answer."""

COLD = 1.0
"""Seconds of loading by which we know that it was not loaded."""

_LONGEST_LINE = 64 * 1024


class Token(NamedTuple):
    """``fault`` is why none came; ``load`` is how long Ollama loaded, both in seconds."""

    model: str
    seconds: float
    load: float = 0.0
    fault: str = ""


def candidates(seen: Seen) -> list[Model]:
    """Models on this machine, in the order in which to ask: those that are loaded, then the smallest."""
    models = [model for model in seen.models or () if not model.remote and not _is_cloud(model.name)]
    names = {model.name for model in models}
    loaded = sorted((model for model in seen.loaded if model.name in names), key=lambda model: model.size)
    rest = sorted(models, key=lambda model: model.size)
    known = {model.name for model in loaded}
    return [*loaded, *(model for model in rest if model.name not in known)][:MODELS]


def _is_cloud(name: str) -> bool:
    return name.lower().endswith(("-cloud", ":cloud"))


async def choose(ollama: httpx.AsyncClient, models: list[Model]) -> Model | None:
    """The first that can answer; models for embeddings cannot."""
    for model in models:
        try:
            shown = (await ollama.post("/api/show", json={"model": model.name})).json()
        except (httpx.HTTPError, ValueError):
            continue
        capabilities = shown.get("capabilities") if isinstance(shown, dict) else None
        if not isinstance(capabilities, list) or "completion" in capabilities:  # old ones do not tell
            return model
    return None


async def ask(ollama: httpx.AsyncClient, model: Model) -> Token:
    """One token. keep_alive and num_ctx stay as they are, so that nothing is reloaded or kept for longer."""
    options: dict[str, int] = {"num_predict": 1}
    if model.context is not None:
        options["num_ctx"] = model.context
    question = {"model": model.name, "prompt": "Hi", "options": options}
    begun = time.monotonic()
    first = 0.0
    load = 0.0
    try:
        async with (
            asyncio.timeout(PATIENCE),
            ollama.stream("POST", "/api/generate", json=question, timeout=PATIENCE) as response,
        ):
            async for line in response.aiter_lines():
                first = first or time.monotonic() - begun
                answer = json.loads(line[:_LONGEST_LINE]) if line else {}
                if not isinstance(answer, dict):
                    return Token(model.name, first, fault="its answer is not as expected")
                if isinstance(fault := answer.get("error"), str):
                    return Token(model.name, first, fault=fault[:200])
                if isinstance(duration := answer.get("load_duration"), int):
                    load = duration / 1e9
            if response.status_code != httpx.codes.OK:
                return Token(model.name, first, fault=f"status {response.status_code}")
    except (TimeoutError, httpx.TimeoutException):
        if not first:
            return Token(model.name, PATIENCE)
    except (httpx.HTTPError, ValueError):
        return Token(model.name, first, fault="its answer broke off")
    return Token(model.name, first, load)


def judge(token: Token | None) -> Finding:
    if token is None:
        return note(
            "no_token_asked", "no model on this machine can be asked for a token", "ollama pull llama3.2"
        )
    took = f"{token.seconds:.1f} s"
    if token.fault:
        return error(
            "generation_fails",
            f"{token.model} gives no token: {token.fault}",
            f"try it by itself ('ollama run {token.model} Hi'), and read the log of Ollama",
        )
    if token.seconds >= PATIENCE:
        return warning(
            "first_token_late",
            f"no token of {token.model} came within {took}",
            "ask again, as it may still be loading; if it stays so, read the log of Ollama: the model may be "
            "too large for this machine, or others keep it busy",
        )
    if token.load >= COLD:
        return note(
            "cold_load",
            f"the first token of {token.model} took {took}, {token.load:.1f} s of it to load the model",
            "where people should not wait for that, start Ollama with a longer OLLAMA_KEEP_ALIVE",
        )
    if token.seconds >= SLOW:
        return warning(
            "first_token_late",
            f"the first token of {token.model} took {took}, though the model is loaded",
            "see who keeps Ollama busy (ollama ps, /metrics); more at once needs OLLAMA_NUM_PARALLEL, or "
            "another machine",
        )
    return ok("first_token", f"the first token of {token.model} took {took}")
