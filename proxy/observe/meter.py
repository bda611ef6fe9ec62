"""What a request that is over has cost: read from its answer, told to metrics and ledger.

Metering fails open: an answer that cannot be read counts as unknown. Nothing here waits.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from proxy.identity.identity import Identity
from proxy.observe.answer_model import model_in
from proxy.observe.ledger import Ledger
from proxy.observe.metrics import Metrics, ModelMetrics
from proxy.observe.models import Models
from proxy.observe.usage import Usage, read_usage
from proxy.policy.routes import Route
from proxy.upstream.relay import Relay

LONGEST_TAIL = 32 * 1024
"""Bytes of an answer's end that are looked at."""

OPERATIONS = {
    "/api/chat": "chat",
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/api/generate": "text_completion",
    "/v1/completions": "text_completion",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
    "/v1/embeddings": "embeddings",
}
"""``gen_ai.operation.name`` of OpenTelemetry's semantic conventions, by route."""

_ENDS_IN_AN_ERROR = re.compile(rb"(?:^|\n)\{\"error\":[^\n]*\n?\Z")
_TERMINATED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/messages"})

_STREAMS = (b"application/x-ndjson", b"text/event-stream")
_UNKNOWN = Usage(None, None, None, None, None, None, False)


class Cost(NamedTuple):
    """``model`` is None where the request is of none; ``broken`` says that Ollama failed within a 200."""

    model: str | None
    input_tokens: int | None = None
    output_tokens: int | None = None
    broken: bool = False


NO_COST = Cost(None)


class Meter:
    """``models`` are those that Ollama lists."""

    def __init__(self, metrics: Metrics, ledger: Ledger, models: Models) -> None:
        self._metrics = metrics
        self._ledger = ledger
        self.models = models

    def label(self, route: Route | None, asked: str | None) -> str | None:
        """The model of a request that Ollama did not get; ``asked`` is what it names, where that is known."""
        if asked is None and (route is None or not route.metered):
            return None
        return self.models.label(asked)

    def finished(
        self,
        route: Route,
        relay: Relay,
        who: Identity,
        asked: str | None,
        outcome: str,
        started_at: float,
        ended_at: float,
        request_id: bytes,
    ) -> Cost:
        """Read what a forwarded request has cost, and count it, once.

        ``asked`` is the model that the request names, where that is known; else the answer tells. Times are
        of `time.monotonic`.
        """
        key = who.key_name if who.key_id is not None and who.key_name is not None else who.auth
        seconds = ended_at - started_at
        if not route.metered:
            model = self.label(route, asked)
            if relay.forwarded_at:
                self._ledger.add(time.time(), who.key_id, key, model, route.path, None, None, seconds)
            return NO_COST if model is None else Cost(model)
        usage, broken = _UNKNOWN, False
        torn = relay.failure or relay.left_in
        if relay.status == 200 and relay.first_byte_at and not (torn and _is_one(relay)):
            tail = relay.tail[-LONGEST_TAIL:]
            whole = len(tail) == relay.sent
            usage = read_usage(route, relay.content_type, tail, relay.lines, whole)
            # The first piece may be as short as a byte.
            model = self.models.label(asked or model_in(route, tail if whole else relay.first, tail))
            broken = outcome == "ok" and not usage.complete and _breaks_off(route, relay.content_type, tail)
        else:
            model = self.models.label(asked)
        read, written = usage.input_tokens, usage.output_tokens
        if relay.forwarded_at:
            self._ledger.add(time.time(), who.key_id, key, model, route.path, read, written, seconds)
        if read is not None or written is not None:
            self._metrics.tokens_used(key, model, read or 0, written or 0)
        if usage.load_seconds is not None:
            self._metrics.model_loaded(model, usage.load_seconds)
        operation = OPERATIONS.get(route.path)
        if operation is not None:
            counted = self._metrics.of_model(operation, model)
            counted.finished(_error_type(relay, outcome, broken), seconds, request_id)
            if read is not None:
                counted.input.observe(read)
            if operation != "embeddings":
                _observe_output(counted, relay, usage, started_at, ended_at, request_id)
        return Cost(model, read, written, broken)


def _is_one(relay: Relay) -> bool:
    """Whether an answer is one JSON document: only its end tells, and tells nothing if it never came."""
    return not relay.content_type.startswith(_STREAMS)


def _breaks_off(route: Route, content_type: bytes, tail: bytes) -> bool:
    """Whether a stream that ended cleanly says, or keeps silent about, a failure of Ollama's.

    On the native routes an error after the first byte is a last line; on three of the others its text is
    lost and the end marker is missing.
    """
    if content_type.startswith(b"text/event-stream"):
        return route.path in _TERMINATED
    return content_type.startswith(b"application/x-ndjson") and _ENDS_IN_AN_ERROR.search(tail) is not None


def _error_type(relay: Relay, outcome: str, broken: bool) -> str:
    if broken or outcome == "upstream_failed":
        return relay.failure or "truncated"
    if outcome != "ok":
        return outcome
    return str(relay.status) if relay.status >= 400 else ""


def _observe_output(
    counted: ModelMetrics, relay: Relay, usage: Usage, started_at: float, ended_at: float, request_id: bytes
) -> None:
    written, seconds = usage.output_tokens, 0.0
    if written is not None:
        counted.output.observe(written)
    if relay.status == 200 and relay.first_byte_at and relay.content_type.startswith(_STREAMS):
        counted.first_token.observe(relay.first_byte_at - started_at, request_id)
        seconds = ended_at - relay.first_byte_at
    elif usage.generation_seconds is not None:
        seconds = usage.generation_seconds
    if seconds and written is not None and written > 1:
        counted.per_token.observe(seconds / (written - 1), request_id)
