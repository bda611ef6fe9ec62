"""The simulator's routes, joined to one app: which path is answered by what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from proxy.simulator import anthropic, errors, manage, native, openai, read, responses
from proxy.simulator.blobs import blob
from proxy.simulator.body import Body
from proxy.simulator.body import read as read_body
from proxy.simulator.errors import OllamaError
from proxy.simulator.generation import Simulation
from proxy.simulator.live import WhileClientStays
from proxy.simulator.models import Catalogue

Handler = Callable[[Simulation, Body], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path. `struct` is the Go type its JSON body is read as; without one the body is ignored."""

    methods: str
    path: str
    handler: Handler
    struct: str = ""
    render: Callable[[OllamaError], Response] = errors.native


ROUTES = (
    Route("HEAD GET", "/", read.root),
    Route("HEAD GET", "/api/version", read.version),
    Route("GET", "/api/status", read.status),
    Route("HEAD GET", "/api/tags", read.tags),
    Route("GET", "/api/ps", read.ps),
    Route("POST", "/api/show", read.show, "api.ShowRequest"),
    Route("POST", "/api/generate", native.generate, "api.GenerateRequest"),
    Route("POST", "/api/chat", native.chat, "api.ChatRequest"),
    Route("POST", "/api/embed", native.embed, "api.EmbedRequest"),
    Route("POST", "/api/embeddings", native.embeddings, "api.EmbeddingRequest"),
    Route("POST", "/api/pull", manage.pull, "api.PullRequest"),
    Route("POST", "/api/create", manage.create, "api.CreateRequest"),
    Route("POST", "/api/copy", manage.copy, "api.CopyRequest"),
    Route("DELETE", "/api/delete", manage.delete, "api.DeleteRequest"),
    Route("GET", "/v1/models", read.v1_models, render=errors.openai),
    Route("GET", "/v1/models/{model}", read.v1_model, render=errors.openai),
    Route(
        "POST",
        "/v1/chat/completions",
        openai.chat_completions,
        "openai.ChatCompletionRequest",
        errors.openai,
    ),
    Route("POST", "/v1/completions", openai.completions, "openai.CompletionRequest", errors.openai),
    Route("POST", "/v1/embeddings", openai.embeddings, "openai.EmbedRequest", errors.openai),
    Route("POST", "/v1/responses", responses.responses, "openai.ResponsesRequest", errors.openai),
    Route("POST", "/v1/messages", anthropic.messages, "anthropic.MessagesRequest", errors.anthropic),
    Route("GET", "/simulator/state", read.state),
)


def create_app(tokens_per_second: float = 20.0, load_seconds: float = 3.0) -> FastAPI:
    """An app that answers like an Ollama of its own: its models and counters start anew.

    `load_seconds` is the cold start of the model `slow`. Raises ValueError for a rate that is not above 0
    (`math.inf` means no pauses) or a negative time.
    """
    if not tokens_per_second > 0:
        raise ValueError("tokens_per_second must be above 0")
    if not load_seconds >= 0:
        raise ValueError("load_seconds must be 0 or more")
    simulation = Simulation(tokens_per_second, Catalogue(load_seconds))
    app = FastAPI(
        title="Simulator of ollama-auth-proxy",
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _no_route},
    )
    for route in ROUTES:
        _add(app, route.path, route.methods, _endpoint(simulation, route))
    _add(app, "/api/blobs/{digest}", "HEAD POST", _blob_endpoint(simulation))
    return app


def _add(app: FastAPI, path: str, methods: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
    app.add_api_route(path, endpoint, methods=methods.split(), response_model=None)


def _endpoint(simulation: Simulation, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            raw = await request.body() if route.struct else b""
        except ClientDisconnect:
            return Response()  # nobody is left to read it
        return WhileClientStays(partial(_answer, simulation, route, raw, request.path_params))

    return endpoint


async def _answer(simulation: Simulation, route: Route, raw: bytes, path: dict[str, object]) -> Response:
    try:
        body = read_body(raw, route.struct) if route.struct else Body(path)
        return await route.handler(simulation, body)
    except OllamaError as error:
        return route.render(error)


def _blob_endpoint(simulation: Simulation) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await blob(simulation, request)
        except OllamaError as error:
            return errors.native(error)

    return endpoint


async def _no_route(request: Request, error: Exception) -> Response:
    """Gin's 404 and 405: plain text."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").split(", ")
        allow = ", ".join(sorted(allowed, key=lambda method: (method != "HEAD", method)))
        return Response("405 method not allowed", 405, {"allow": allow, "content-type": "text/plain"})
    return Response("404 page not found", 404, {"content-type": "text/plain"})
