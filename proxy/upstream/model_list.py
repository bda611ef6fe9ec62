"""Asks Ollama from time to time which models it has, so that metrics and log can name them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import httpx

from proxy.upstream.json_answer import get_json

INTERVAL = 15.0
"""Seconds between two questions."""

RETRY_INTERVAL = 2.0
"""Seconds after which a question without an answer is asked again."""

TIMEOUT = 5.0
"""Seconds that Ollama has for the whole of its answer."""


async def list_models(url: str, client: httpx.AsyncClient) -> list[str] | None:
    """The names in ``GET /api/tags``, as Ollama spells them; None where it does not tell."""
    try:
        async with asyncio.timeout(TIMEOUT):
            answer: Any = await get_json(client, f"{url}/api/tags")
        return [model["name"] for model in answer["models"] if isinstance(model["name"], str)]
    except (httpx.HTTPError, TimeoutError, LookupError, TypeError):
        return None


async def follow_models(url: str, tell: Callable[[Iterable[str]], None]) -> NoReturn:
    """Ask at once and every `INTERVAL`, and tell what there is; while Ollama is away, nothing is told."""
    verify = url.startswith("https:")
    async with httpx.AsyncClient(trust_env=False, verify=verify, timeout=TIMEOUT) as client:
        while True:
            names = await list_models(url, client)
            if names is not None:
                tell(names)
            await asyncio.sleep(RETRY_INTERVAL if names is None else INTERVAL)
