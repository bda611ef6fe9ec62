"""/metrics, in the exposition format that the scraper asks for (Prometheus text or OpenMetrics)."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterator

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder


class _Counted(CollectorRegistry):
    """What was counted at one moment, for an encoder that runs beside the event loop."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


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
        counted = _Counted([*registry.collect()])
        body = await asyncio.to_thread(encode, counted)  # streams go on meanwhile
        return Response(body, media_type=None, headers={"Content-Type": content_type})

    return router
