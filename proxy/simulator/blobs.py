"""Blob upload: /api/blobs/{digest}. The SHA-256 is really checked; of the bytes nothing is kept."""

from __future__ import annotations

import hashlib
import re

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from proxy.simulator.errors import OllamaError
from proxy.simulator.generation import Simulation

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


async def blob(simulation: Simulation, request: Request) -> Response:
    """HEAD: 200 if the blob is known, else 404. POST: 201 once the bytes match, 200 if it was known."""
    digest = request.path_params["digest"]
    if not _DIGEST.fullmatch(digest):
        raise OllamaError(400, "invalid digest format")
    known = digest.replace("-", ":") in simulation.blobs
    if request.method == "HEAD" and not known:
        raise OllamaError(404, f'blob "{digest}" not found')
    if known:
        return _empty(200)
    try:
        found = await _sha256(request)
    except ClientDisconnect:
        return _empty(200)  # nobody is left to read it, and the blob stays unknown
    if found != digest:
        raise OllamaError(400, f'digest mismatch, expected "{digest}", got "{found}"')
    simulation.blobs.add(digest)
    return _empty(201)


async def _sha256(request: Request) -> str:
    digest = hashlib.sha256()
    async for chunk in request.stream():
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _empty(status: int) -> Response:
    return Response(status_code=status)
