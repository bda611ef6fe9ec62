"""/healthz and /readyz. They carry no secrets and are open, because probes cannot send a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse

State = Literal["ok", "degraded", "failing"]
Check = Callable[[], tuple[State, str]]
"""Tells a state and, unless it is ok, why."""

_ORDER: tuple[State, ...] = ("ok", "degraded", "failing")


def worst(states: list[State]) -> State:
    """The state of the whole: that of its worst part."""
    return max(states, key=_ORDER.index, default="ok")


def health_routes(checks: Callable[[], Mapping[str, Check]]) -> APIRouter:
    """``checks`` gives what is to be asked, which a reload may change."""
    router = APIRouter()

    @router.get("/healthz", summary="The process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="The proxy can serve; 503 where it cannot")
    async def readyz() -> JSONResponse:
        results = {name: check() for name, check in checks().items()}
        status = worst([state for state, _ in results.values()])
        body = {
            "status": status,
            "checks": {
                name: {"status": state} | ({"reason": reason} if reason else {})
                for name, (state, reason) in results.items()
            },
        }
        return JSONResponse(body, status_code=503 if status == "failing" else 200)

    return router
