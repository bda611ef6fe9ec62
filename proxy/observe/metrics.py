"""What Prometheus sees. Counting is plain arithmetic on the request path; families are made at a scrape.

prometheus_client's own counters take a lock and two look-ups an increment, several times a request; the
event loop is the only writer here, so a dict entry is enough. Every label is bounded: routes are rows of
the table, methods those of the table or ``other``, codes the statuses that were sent, keys the names that
the operator gave, models names that Ollama lists (see `proxy.observe.models`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from proxy.errors import COUNTED_AS_DENIED, ERRORS
from proxy.policy.routes import OTHER, ROUTES

DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 7200,
)  # fmt: skip
"""Seconds. Cold loads of a model take minutes, and a long answer an hour."""

TIME_TO_FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
    640, 2560,
)  # fmt: skip
"""Seconds: OpenTelemetry's, and vLLM's on top of them, for cold loads."""

TIME_PER_TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
"""Seconds: OpenTelemetry's, and vLLM's on top of them."""

GENERATION_BUCKETS = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
"""Seconds from end to end: vLLM's."""

TOKEN_BUCKETS = tuple(4.0**power for power in range(14))
"""Tokens: OpenTelemetry's, 1 to 67,108,864."""

LOAD_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Seconds. A model that is loaded already takes some hundredths."""

LATENCY_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
"""Seconds."""

_METHODS = frozenset(route.method for route in ROUTES)


MOST_PAIRS = 5000
"""Pairs of key and model that are told apart; of those after them the model is ``other``."""

EXEMPLAR_LENGTH = 100
"""Characters of a request id that OpenMetrics has room for, its label's name aside (128 in all)."""

Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Histogram:
    """Counts of observations by bucket, not yet cumulative, their sum, and the last request in each."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, tuple[bytes, float]] = {}
        self.total = 0.0

    def observe(self, value: float, request_id: bytes = b"") -> None:
        """Count one value; ``request_id`` is that of the request it comes from, for an exemplar."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if request_id:
            self.exemplars[bucket] = (request_id, value)

    def buckets(self) -> list[Bucket]:
        bounds = [*map(str, map(float, self.bounds)), "+Inf"]
        found: list[Bucket] = list(zip(bounds, accumulate(self.counts), strict=True))
        for bucket, (request_id, value) in self.exemplars.items():
            if len(request_id) <= EXEMPLAR_LENGTH:
                bound, count, *_ = found[bucket]
                found[bucket] = (bound, count, Exemplar({"request_id": request_id.decode("ascii")}, value))
        return found


class RouteMetrics:
    """What is counted per row of the route table; ``path`` is its label."""

    __slots__ = ("codes", "duration", "first_byte", "in_flight", "path", "received", "sent")

    def __init__(self, path: str) -> None:
        self.path = path
        self.codes: dict[tuple[str, int], int] = {}
        self.duration = Histogram(DURATION_BUCKETS)
        self.first_byte = Histogram(DURATION_BUCKETS)
        self.in_flight = 0
        self.received = 0
        self.sent = 0

    def finished(
        self, method: str, code: int, received: int, sent: int, seconds: float, request_id: bytes = b""
    ) -> None:
        """A request is over; ``code`` is what the client was sent, 499 where it left before an end."""
        key = (method if method in _METHODS else OTHER, code)
        self.codes[key] = self.codes.get(key, 0) + 1
        self.received += received
        self.sent += sent
        self.duration.observe(seconds, request_id)


class ModelMetrics:
    """What is counted per operation and model, under OpenTelemetry's names for generative AI."""

    __slots__ = ("durations", "first_token", "input", "output", "per_token")

    def __init__(self) -> None:
        self.durations: dict[str, Histogram] = {}
        self.first_token = Histogram(TIME_TO_FIRST_TOKEN_BUCKETS)
        self.per_token = Histogram(TIME_PER_TOKEN_BUCKETS)
        self.input = Histogram(TOKEN_BUCKETS)
        self.output = Histogram(TOKEN_BUCKETS)

    def finished(self, error_type: str, seconds: float, request_id: bytes) -> None:
        """A request is over; ``error_type`` is empty where it went well."""
        duration = self.durations.get(error_type)
        if duration is None:
            duration = self.durations[error_type] = Histogram(GENERATION_BUCKETS)
        duration.observe(seconds, request_id)


class Reload(NamedTuple):
    """How the last attempt to read the configuration anew ended; ``succeeded_at`` in unix seconds."""

    success: bool
    succeeded_at: float


class IssuerKeysState(NamedTuple):
    """The keys of one issuer of JWTs; ``age`` in seconds, None where they could never be read."""

    issuer: str
    age: float | None
    failures: int


class Metrics(Collector):
    """All that one replica counts; only the event loop writes."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.routes = {path: RouteMetrics(path) for path in [*dict.fromkeys(r.path for r in ROUTES), OTHER]}
        self.added_latency = Histogram(LATENCY_BUCKETS)
        self.models: dict[tuple[str, str], ModelMetrics] = {}
        self.model_loads: dict[str, Histogram] = {}
        self.tokens: dict[tuple[str, str], list[int]] = {}
        self.reload = Reload(True, 0.0)
        # All begin at 0: the first of a kind would be no increase for Prometheus.
        self.denied = dict.fromkeys((c for c, row in ERRORS.items() if row.status in COUNTED_AS_DENIED), 0)
        self.disconnects = dict.fromkeys(("upload", "queue", "waiting", "streaming"), 0)
        self.upstream_failures = dict.fromkeys(("connect", "reset", "truncated", "malformed"), 0)
        self.upstream_up: dict[str, bool] = {}
        self.certificate_expiry: Callable[[], float | None] = lambda: None
        self.issuer_keys: Callable[[], list[IssuerKeysState]] = list
        self.log_lines_dropped: Callable[[], int] = lambda: 0
        self.open_connections: Callable[[], int] = lambda: 0

    def collect(self) -> Iterator[Metric]:
        yield from self._by_route()
        latency = HistogramMetricFamily(
            "ollama_proxy_added_latency_seconds",
            "Own time from the end of the request head to forwarding, waiting in the queue excluded.",
        )
        latency.add_metric([], self.added_latency.buckets(), self.added_latency.total)
        yield latency
        yield from self._queue()
        yield _counters(
            "ollama_proxy_denied",
            "Requests refused with 400, 401, 403 or 429, by error code.",
            "code",
            self.denied,
        )
        yield _counters(
            "ollama_proxy_client_disconnects",
            "Requests whose client left, by the phase it left in.",
            "phase",
            self.disconnects,
        )
        yield _counters(
            "ollama_proxy_upstream_failures",
            "Failures of the connection to Ollama, by kind.",
            "kind",
            self.upstream_failures,
        )
        up = GaugeMetricFamily(
            "ollama_proxy_upstream_up", "Whether Ollama answered the last probe.", labels=["server"]
        )
        for server, is_up in self.upstream_up.items():
            up.add_metric([server], float(is_up))
        yield up
        yield GaugeMetricFamily(
            "ollama_proxy_open_connections",
            "Connections of clients, handshakes included.",
            self.open_connections(),
        )
        expiry = self.certificate_expiry()
        if expiry is not None:
            yield GaugeMetricFamily(
                "ollama_proxy_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, in unix seconds.",
                expiry,
            )
        yield from self._by_issuer()
        yield from self._by_model()
        yield GaugeMetricFamily(
            "ollama_proxy_config_reload_success",
            "Whether the configuration that was read last is in force: 0 where it was refused.",
            float(self.reload.success),
        )
        yield GaugeMetricFamily(
            "ollama_proxy_config_reload_timestamp_seconds",
            "When the configuration in force was read, in unix seconds.",
            self.reload.succeeded_at,
        )
        yield CounterMetricFamily(
            "ollama_proxy_log_lines_dropped",
            "Log lines dropped because nobody read them fast enough.",
            self.log_lines_dropped(),
        )
        yield InfoMetricFamily("ollama_proxy_build", "The version that runs.", {"version": self._version})

    def tokens_used(self, key: str, model: str, input_tokens: int, output_tokens: int) -> None:
        """Count what an answer cost; ``key`` is the name that the operator gave."""
        tokens = self.tokens.get((key, model))
        if tokens is None:
            if len(self.tokens) >= MOST_PAIRS:
                model = OTHER
            tokens = self.tokens.setdefault((key, model), [0, 0])
        tokens[0] += input_tokens
        tokens[1] += output_tokens

    def model_loaded(self, model: str, seconds: float) -> None:
        """Observe how long Ollama took to have a model loaded."""
        loads = self.model_loads.get(model)
        if loads is None:
            loads = self.model_loads[model] = Histogram(LOAD_BUCKETS)
        loads.observe(seconds)

    def of_model(self, operation: str, model: str) -> ModelMetrics:
        """What is counted of an operation on a model."""
        found = self.models.get((operation, model))
        if found is None:
            found = self.models[operation, model] = ModelMetrics()
        return found

    def _queue(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ollama_proxy_requests_waiting",
            "Requests that wait in the proxy's own queue. This version has none, so nobody waits.",
            0,
        )
        waits = HistogramMetricFamily(
            "ollama_proxy_queue_wait_seconds",
            "Time that forwarded requests spent in the proxy's own queue. This version has none.",
        )
        forwarded = sum(self.added_latency.counts)
        waits.add_metric([], [(bound, forwarded) for bound, *_ in Histogram(DURATION_BUCKETS).buckets()], 0.0)
        yield waits

    def _by_model(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            "ollama_proxy_tokens",
            "Tokens by key, model and type (input or output), as Ollama counted them.",
            labels=["key", "model", "type"],
        )
        for (key, model), (read, written) in self.tokens.items():
            tokens.add_metric([key, model, "input"], read)
            tokens.add_metric([key, model, "output"], written)
        loads = HistogramMetricFamily(
            "ollama_proxy_model_load_seconds",
            "Time that Ollama took to have the model loaded, as its native answers tell.",
            labels=["model"],
        )
        for model, histogram in self.model_loads.items():
            loads.add_metric([model], histogram.buckets(), histogram.total)
        names = ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"]
        duration = HistogramMetricFamily(
            "gen_ai_server_request_duration_seconds",
            "From the end of the request head to the end of the answer.",
            labels=[*names, "error_type"],
        )
        first_token = HistogramMetricFamily(
            "gen_ai_server_time_to_first_token_seconds",
            "From the end of the request head to the first piece of a streamed answer.",
            labels=names,
        )
        per_token = HistogramMetricFamily(
            "gen_ai_server_time_per_output_token_seconds",
            "Time for each output token after the first one.",
            labels=names,
        )
        usage = HistogramMetricFamily(
            "gen_ai_client_token_usage", "Tokens of a request.", labels=[*names, "gen_ai_token_type"]
        )
        for (operation, model), counted in self.models.items():
            labels = [operation, "ollama", model]
            for error_type, histogram in counted.durations.items():
                duration.add_metric([*labels, error_type], histogram.buckets(), histogram.total)
            for family, histogram in ((first_token, counted.first_token), (per_token, counted.per_token)):
                if any(histogram.counts):
                    family.add_metric(labels, histogram.buckets(), histogram.total)
            for kind, histogram in (("input", counted.input), ("output", counted.output)):
                if any(histogram.counts):
                    usage.add_metric([*labels, kind], histogram.buckets(), histogram.total)
        yield from (tokens, loads, duration, first_token, per_token, usage)

    def _by_issuer(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "ollama_proxy_jwks_age_seconds",
            "Time since the keys of an issuer of JWTs were last read; +Inf where they never were.",
            labels=["issuer"],
        )
        failures = CounterMetricFamily(
            "ollama_proxy_jwks_failures",
            "Times that the keys of an issuer of JWTs could not be read.",
            labels=["issuer"],
        )
        for state in self.issuer_keys():
            age.add_metric([state.issuer], math.inf if state.age is None else state.age)
            failures.add_metric([state.issuer], state.failures)
        yield from (age, failures)

    def _by_route(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "ollama_proxy_requests",
            "Requests by route, method and status; 499 where the client left.",
            labels=["route", "method", "code"],
        )
        duration = HistogramMetricFamily(
            "ollama_proxy_request_duration_seconds",
            "From the end of the request head to the end of the response.",
            labels=["route"],
        )
        first_byte = HistogramMetricFamily(
            "ollama_proxy_time_to_first_byte_seconds",
            "From the end of the request head to the first byte of Ollama's response body.",
            labels=["route"],
        )
        in_flight = GaugeMetricFamily(
            "ollama_proxy_requests_in_flight", "Requests not yet over.", labels=["route"]
        )
        received = CounterMetricFamily(
            "ollama_proxy_received_bytes", "Bytes of request bodies.", labels=["route"]
        )
        sent = CounterMetricFamily("ollama_proxy_sent_bytes", "Bytes of response bodies.", labels=["route"])
        for path, route in self.routes.items():
            for (method, code), count in route.codes.items():
                requests.add_metric([path, method, str(code)], count)
            in_flight.add_metric([path], route.in_flight)
            if route.codes:
                duration.add_metric([path], route.duration.buckets(), route.duration.total)
                first_byte.add_metric([path], route.first_byte.buckets(), route.first_byte.total)
                received.add_metric([path], route.received)
                sent.add_metric([path], route.sent)
        yield from (requests, duration, first_byte, in_flight, received, sent)


def _counters(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
