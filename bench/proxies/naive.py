"""The obvious way: a FastAPI route that streams through httpx, with a bearer check, run by uvicorn.

The file is both the app that people write first and what starts it here.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.background import BackgroundTask

from bench.load.target import Target
from bench.process import free_port, running, wait_until
from bench.proxies.site import Running, Site, listens, make_key


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=os.environ["NAIVE_UPSTREAM"], timeout=None) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=_lifespan)


def check_bearer(given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
    """401 unless the bearer token is the one in the environment."""
    if not secrets.compare_digest(given.credentials, os.environ["NAIVE_KEY"]):
        raise HTTPException(401)


@app.api_route(
    "/{path:path}", methods=["GET", "HEAD", "POST", "DELETE"], dependencies=[Depends(check_bearer)]
)
async def forward(request: Request, path: str) -> StreamingResponse:
    """Send the request on and stream the answer back."""
    client: httpx.AsyncClient = request.app.state.client
    headers = {
        name: value for name, value in request.headers.items() if name not in ("host", "authorization")
    }
    body = request.stream() if request.method == "POST" else None
    upstream_request = client.build_request(
        request.method, f"/{path}", params=request.query_params, headers=headers, content=body
    )
    response = await client.send(upstream_request, stream=True)
    return StreamingResponse(
        response.aiter_raw(),
        status_code=response.status_code,
        headers=dict(response.headers),
        background=BackgroundTask(response.aclose),
    )


@contextmanager
def naive(site: Site) -> Iterator[Running]:
    """Start it and wait until it listens."""
    port, key = free_port(), make_key()
    errors = site.directory / "errors.log"
    environment = {"NAIVE_UPSTREAM": f"http://127.0.0.1:{site.upstream_port}", "NAIVE_KEY": key}
    command = [sys.executable, "-m", "uvicorn", "bench.proxies.naive:app", "--port", str(port)]
    access_log = site.directory / "access.log"
    with running(
        command, core=site.core, output=access_log, errors=errors, environment=environment
    ) as process:
        wait_until(lambda: listens(port), process, "the FastAPI route", errors)
        yield Running(process.pid, Target(port, tls=False, key=key))
