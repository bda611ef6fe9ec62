"""What Prometheus sees. Counting is plain arithmetic on the request path; families are made at a scrape.

prometheus_client's own counters take a lock and two look-ups an increment, several times a request; the
event loop is the only writer here, so a dict entry is enough. Every label is bounded: routes are rows of
the table, methods those of the table or ``other``, codes the statuses that were sent.
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

from proxy.policy.routes import OTHER, ROUTES

DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 7200,
)  # fmt: skip
"""Seconds. Cold loads of a model take minutes, and a long answer an hour."""

LATENCY_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
"""Seconds."""

_METHODS = frozenset(route.method for route in ROUTES)


class Histogram:
    """Counts of observations by bucket, not yet cumulative, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        bounds = [*map(str, map(float, self.bounds)), "+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True))


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

    def finished(self, method: str, code: int, received: int, sent: int, seconds: float) -> None:
        """A request is over; ``code`` is what the client was sent, 499 where it left before an end."""
        key = (method if method in _METHODS else OTHER, code)
        self.codes[key] = self.codes.get(key, 0) + 1
        self.received += received
        self.sent += sent
        self.duration.observe(seconds)


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
        self.denied: dict[str, int] = {}
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
        yield CounterMetricFamily(
            "ollama_proxy_log_lines_dropped",
            "Log lines dropped because nobody read them fast enough.",
            self.log_lines_dropped(),
        )
        yield InfoMetricFamily("ollama_proxy_build", "The version that runs.", {"version": self._version})

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
