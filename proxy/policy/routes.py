"""The one table of routes: what Ollama serves, and what each route needs.

A request is looked up by method and raw path, exactly. What is not in the table does not exist for
clients. The rows also name the routes in metrics, logs and docs/routes.md. Source: Ollama's
server/routes.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from proxy.errors import Dialect


class Scope(Enum):
    """What a key may be granted; the texts are what operators write."""

    READ = "read"
    INFERENCE = "inference"
    MANAGE = "manage"
    PUSH = "push"
    ACCOUNT = "account"
    ADMIN = "admin"


class ModelPlace(Enum):
    """Where the name of the model stands in a request."""

    NONE = "none"
    BODY_MODEL = "body: model"
    BODY_MODEL_OR_NAME = "body: model, else name"
    BODY_CREATE = "body: model, else name; from, files, adapters"
    BODY_COPY = "body: source and destination"
    FORM_MODEL = "form: model"
    PATH = "path"


class Stream(Enum):
    """How an answer that comes in pieces is delimited."""

    NONE = "none"
    NDJSON = "ndjson"
    SSE = "sse"


@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``path`` is the label in metrics; a segment in braces stands for any one value."""

    method: str
    path: str
    scope: Scope
    model: ModelPlace = ModelPlace.NONE
    dialect: Dialect = Dialect.NATIVE
    stream: Stream = Stream.NONE
    scope_name: str = field(init=False)
    repeatable: bool = field(init=False)
    """Whether asking twice does no harm: reading, and inference, which Ollama drops with the connection."""
    metered: bool = field(init=False)
    """Whether its answers cost tokens, and say how many."""
    web_tools: bool = field(init=False)
    """Whether Ollama itself serves tools that search the web there, in the name of its account."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope_name", self.scope.value)
        object.__setattr__(self, "repeatable", self.scope in (Scope.READ, Scope.INFERENCE))
        object.__setattr__(self, "metered", self.scope is Scope.INFERENCE)
        object.__setattr__(self, "web_tools", self.path in ("/v1/messages", "/v1/responses"))


_R, _I, _M, _P, _A = Scope.READ, Scope.INFERENCE, Scope.MANAGE, Scope.PUSH, Scope.ACCOUNT
_MODEL, _NAME = ModelPlace.BODY_MODEL, ModelPlace.BODY_MODEL_OR_NAME
_NATIVE, _OPENAI, _ANTHROPIC = Dialect.NATIVE, Dialect.OPENAI, Dialect.ANTHROPIC
_NONE, _NDJSON, _SSE = Stream.NONE, Stream.NDJSON, Stream.SSE

ROUTES: tuple[Route, ...] = (
    Route("GET", "/", _R),
    Route("HEAD", "/", _R),
    Route("GET", "/api/version", _R),
    Route("HEAD", "/api/version", _R),
    Route("GET", "/api/status", _R),
    Route("GET", "/api/tags", _R),
    Route("HEAD", "/api/tags", _R),
    Route("GET", "/api/ps", _R),
    Route("POST", "/api/show", _R, _NAME),
    Route("POST", "/api/generate", _I, _MODEL, _NATIVE, _NDJSON),
    Route("POST", "/api/chat", _I, _MODEL, _NATIVE, _NDJSON),
    Route("POST", "/api/embed", _I, _MODEL),
    Route("POST", "/api/embeddings", _I, _MODEL),
    Route("POST", "/api/pull", _M, _NAME, _NATIVE, _NDJSON),
    Route("POST", "/api/push", _P, _NAME, _NATIVE, _NDJSON),
    Route("POST", "/api/create", _M, ModelPlace.BODY_CREATE, _NATIVE, _NDJSON),
    Route("POST", "/api/copy", _M, ModelPlace.BODY_COPY),
    Route("DELETE", "/api/delete", _M, _NAME),
    Route("POST", "/api/blobs/{digest}", _M),
    Route("HEAD", "/api/blobs/{digest}", _M),
    Route("POST", "/api/me", _A),
    Route("POST", "/api/signout", _A),
    Route("DELETE", "/api/user/keys/{key}", _A),
    Route("POST", "/api/experimental/web_search", _A),
    Route("POST", "/api/experimental/web_fetch", _A),
    Route("GET", "/api/experimental/model-recommendations", _R),
    Route("POST", "/v1/chat/completions", _I, _MODEL, _OPENAI, _SSE),
    Route("POST", "/v1/completions", _I, _MODEL, _OPENAI, _SSE),
    Route("POST", "/v1/responses", _I, _MODEL, _OPENAI, _SSE),
    Route("POST", "/v1/messages", _I, _MODEL, _ANTHROPIC, _SSE),
    Route("POST", "/v1/embeddings", _I, _MODEL, _OPENAI),
    Route("POST", "/v1/audio/transcriptions", _I, ModelPlace.FORM_MODEL, _OPENAI),
    Route("GET", "/v1/models", _R, ModelPlace.NONE, _OPENAI),
    Route("GET", "/v1/models/{model}", _R, ModelPlace.PATH, _OPENAI),
)

OTHER = "other"
"""The label of every request that matches no row."""

# A value in braces. Ollama checks a digest only after it has stored the upload, so it is checked here.
_VALUES = {
    "/api/blobs/{digest}": re.compile(rb"sha256[:-][0-9a-f]{64}"),
    "/api/user/keys/{key}": re.compile(rb"(?!\.{1,2}$)[A-Za-z0-9._~!$&'()*+,;=:@-]+"),
    "/v1/models/{model}": re.compile(rb"(?!\.{1,2}$)(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%3A)+"),
}

_EXACT = {(route.method, route.path.encode()): route for route in ROUTES if "{" not in route.path}
_BY_PREFIX = tuple((path[: path.index("{")].encode(), path, value) for path, value in _VALUES.items())
_METHODS: dict[str, tuple[str, ...]] = {
    path: tuple(route.method for route in ROUTES if route.path == path) for path in {r.path for r in ROUTES}
}
_BY_TEMPLATE = {(route.method, route.path): route for route in ROUTES}


def match(method: str, raw_path: bytes) -> Route | None:
    """The row for a method and a canonical raw path, or None."""
    return _EXACT.get((method, raw_path)) or _BY_TEMPLATE.get((method, _template(raw_path)))


def allowed_methods(raw_path: bytes) -> tuple[str, ...]:
    """The methods that a path knows, for Allow (RFC 9110 10.2.1); empty where the path is unknown."""
    return _METHODS.get(_template(raw_path) or raw_path.decode("ascii", "replace"), ())


def dialect_of(raw_path: bytes) -> Dialect:
    """Whose dialect an error speaks where no row matched.

    That of the path's other methods; else OpenAI's under /v1/ and Ollama's own elsewhere.
    """
    path = _template(raw_path) or raw_path.decode("ascii", "replace")
    for method in _METHODS.get(path, ()):
        return _BY_TEMPLATE[method, path].dialect
    return Dialect.OPENAI if raw_path.startswith(b"/v1/") else Dialect.NATIVE


def _template(raw_path: bytes) -> str:
    for prefix, path, value in _BY_PREFIX:
        if raw_path.startswith(prefix) and value.fullmatch(raw_path, len(prefix)):
            return path
    return ""


_CANONICAL = re.compile(rb"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+|/")
_DOTTED = re.compile(rb"/\.{1,2}(?:/|$)")


def is_canonical(raw_path: bytes) -> bool:
    """Whether a path has one spelling only, so that Ollama cannot read it in another way than we do.

    No escapes, empty or dot segments, trailing slash, or characters outside RFC 3986's pchar.
    The one exception is ``%3A`` in ``/v1/models/{model}``, which many clients send for the colon.
    """
    if raw_path.startswith(b"/v1/models/") and raw_path.count(b"/") == 3:
        raw_path = raw_path.replace(b"%3A", b":")
    return _CANONICAL.fullmatch(raw_path) is not None and not _DOTTED.search(raw_path)
