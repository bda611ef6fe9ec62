"""/metrics, in the exposition format that the scraper asks for (Prometheus text or OpenMetrics)."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


def metrics_routes(registry: CollectorRegistry, token: Callable[[], str | None]) -> APIRouter:
    """``token`` gives what scrapers must send as a bearer, at the moment; None asks for nothing."""
    router = APIRouter()

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics(request: Request) -> Response:
        expected = token()
        if expected is not None:
            scheme, _, presented = request.headers.get("authorization", "").partition(" ")
            holds = hmac.compare_digest(presented.strip(" ").encode("latin-1", "replace"), expected.encode())
            if scheme.lower() != "bearer" or not holds:
                raise HTTPException(
                    401, "send the token of ops.token_file as a bearer", {"WWW-Authenticate": "Bearer"}
                )
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=None, headers={"Content-Type": content_type})

    return router
