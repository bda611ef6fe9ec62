"""Asks Ollama for a JSON document, within a bound; for what is not on the request path."""

from __future__ import annotations

import httpx

LARGEST = 8 * 1024 * 1024
"""Bytes of an answer; a list of thousands of models takes less."""


async def get_json(client: httpx.AsyncClient, url: str) -> object:
    """The document, None where there is none: another status than 200, no JSON, or more than `LARGEST`.

    Raises httpx.HTTPError.
    """
    async with client.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            return None
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LARGEST:
                return None
    try:
        answer: object = httpx.Response(200, content=bytes(body)).json()
    except (ValueError, RecursionError):
        return None
    return answer
