"""What Ollama answers instead of a result, in the three dialects of its routes."""

from __future__ import annotations

import secrets

from starlette.responses import Response

from proxy.simulator.go_json import json_line_response, json_response


class OllamaError(Exception):
    """The request ends with this status and message, in the dialect of its route."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class MalformedError(OllamaError):
    """A 400 from before the request reached a handler; only the form of the error differs, on /v1."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class CloudDisabledError(OllamaError):
    """A cloud model, as an Ollama with OLLAMA_NO_CLOUD=1 refuses it: in the native form even on /v1."""

    def __init__(self, what: str) -> None:
        super().__init__(403, f"ollama cloud is disabled: {what} unavailable")


_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


def native(error: OllamaError) -> Response:
    return json_response({"error": error.message}, error.status)


def openai(error: OllamaError) -> Response:
    if isinstance(error, CloudDisabledError):
        return native(error)
    kind = _TYPES.get(error.status, "api_error")
    return _v1(error, {"error": {"message": error.message, "type": kind, "param": None, "code": None}})


def anthropic(error: OllamaError) -> Response:
    if isinstance(error, CloudDisabledError):
        return native(error)
    inner = {"type": _TYPES.get(error.status, "api_error"), "message": error.message}
    return _v1(error, {"type": "error", "error": inner, "request_id": f"req_{secrets.token_hex(12)}"})


def _v1(error: OllamaError, body: dict[str, object]) -> Response:
    if isinstance(error, MalformedError):
        return json_response(body, error.status)
    return json_line_response(body, error.status)
