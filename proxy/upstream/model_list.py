"""Asks Ollama from time to time which models it has, so that metrics and log can name them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NoReturn

import httpx

INTERVAL = 15.0
"""Seconds between two questions."""

RETRY_INTERVAL = 2.0
"""Seconds after which a question without an answer is asked again."""

TIMEOUT = 5.0
"""Seconds that Ollama has for the whole of its answer."""

LARGEST = 8 * 1024 * 1024
"""Bytes of an answer; thousands of models take less."""


async def list_models(url: str, client: httpx.AsyncClient) -> list[str] | None:
    """The names in ``GET /api/tags``, as Ollama spells them; None where it does not tell."""
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            client.stream("GET", f"{url}/api/tags", timeout=TIMEOUT) as response,
        ):
            if response.status_code != httpx.codes.OK:
                return None
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LARGEST:
                    return None
        models = httpx.Response(200, content=bytes(body)).json()["models"]
        return [model["name"] for model in models if isinstance(model["name"], str)]
    except (httpx.HTTPError, TimeoutError, ValueError, LookupError, TypeError, RecursionError):
        return None


async def follow_models(url: str, tell: Callable[[Iterable[str]], None]) -> NoReturn:
    """Ask at once and every `INTERVAL`, and tell what there is; while Ollama is away, nothing is told."""
    async with httpx.AsyncClient(trust_env=False, verify=url.startswith("https:")) as client:
        while True:
            names = await list_models(url, client)
            if names is not None:
                tell(names)
            await asyncio.sleep(RETRY_INTERVAL if names is None else INTERVAL)
