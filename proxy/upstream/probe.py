"""Asks Ollama from time to time whether it is there, for readiness and metrics; never on the request path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

import httpx

INTERVAL = 5.0
"""Seconds between two probes."""

TIMEOUT = 2.0
"""Seconds that Ollama has to answer; /api/version needs no model."""


async def probe(url: str, client: httpx.AsyncClient) -> bool:
    """Whether GET /api/version is answered with 200."""
    try:
        response = await client.get(f"{url}/api/version", timeout=TIMEOUT)
    except httpx.HTTPError:
        return False
    return response.status_code == httpx.codes.OK


async def probe_forever(url: str, tell: Callable[[bool], None]) -> NoReturn:
    """Probe at once and every `INTERVAL`, and tell what came of it."""
    # Proxies named in the environment are for the Internet, not for the Ollama next door.
    async with httpx.AsyncClient(trust_env=False, verify=url.startswith("https:")) as client:
        while True:
            tell(await probe(url, client))
            await asyncio.sleep(INTERVAL)
