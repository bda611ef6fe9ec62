"""What Prometheus sees: the names of the contract, bounded labels, and sums that are right."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from proxy.observe.metrics import DURATION_BUCKETS, LATENCY_BUCKETS, Histogram, Metrics
from proxy.policy.routes import OTHER, ROUTES

PATHS = {route.path for route in ROUTES} | {OTHER}
METHODS = {route.method for route in ROUTES} | {OTHER}

GEN_AI = {"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"}

# The series of the contract that exist in this version, with their labels.
CONTRACT = {
    "ollama_proxy_requests_total": {"route", "method", "code"},
    "ollama_proxy_request_duration_seconds": {"route"},
    "ollama_proxy_added_latency_seconds": set(),
    "ollama_proxy_requests_in_flight": {"route"},
    "ollama_proxy_denied_total": {"code"},
    "ollama_proxy_client_disconnects_total": {"phase"},
    "ollama_proxy_upstream_failures_total": {"kind"},
    "ollama_proxy_upstream_up": {"server"},
    "ollama_proxy_received_bytes_total": {"route"},
    "ollama_proxy_sent_bytes_total": {"route"},
    "ollama_proxy_tls_certificate_expiry_timestamp_seconds": set(),
    "ollama_proxy_build_info": {"version"},
    "ollama_proxy_requests_waiting": set(),
    "ollama_proxy_queue_wait_seconds": set(),
    "ollama_proxy_tokens_total": {"key", "model", "type"},
    "ollama_proxy_model_load_seconds": {"model"},
    "ollama_proxy_config_reload_success": set(),
    "gen_ai_server_time_to_first_token_seconds": GEN_AI,
    "gen_ai_server_time_per_output_token_seconds": GEN_AI,
    "gen_ai_server_request_duration_seconds": GEN_AI | {"error_type"},
    "gen_ai_client_token_usage": GEN_AI | {"gen_ai_token_type"},
}
# And those that are ours beside it.
OWN = {
    "ollama_proxy_time_to_first_byte_seconds": {"route"},
    "ollama_proxy_open_connections": set(),
    "ollama_proxy_log_lines_dropped_total": set(),
    "ollama_proxy_config_reload_timestamp_seconds": set(),
}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def busy() -> Metrics:
    """Metrics in which every family has a sample."""
    metrics = Metrics("1.2.3")
    chat, other = metrics.routes["/api/chat"], metrics.routes[OTHER]
    chat.in_flight += 1
    chat.first_byte.observe(0.3)
    chat.finished("POST", 200, 10, 2000, 1.5)
    chat.finished("POST", 499, 5, 0, 0.1)
    other.finished("BREW", 404, 0, 50, 0.001)
    metrics.added_latency.observe(0.0002)
    metrics.denied["invalid_credentials"] = metrics.denied.get("invalid_credentials", 0) + 1
    metrics.disconnects["streaming"] += 1
    metrics.upstream_failures["reset"] += 1
    metrics.upstream_up["http://127.0.0.1:11434"] = True
    metrics.certificate_expiry = lambda: 1_800_000_000.0
    metrics.log_lines_dropped = lambda: 3
    metrics.open_connections = lambda: 7
    metrics.tokens_used("laptop", "smollm2:135m", 9, 16)
    metrics.model_loaded("smollm2:135m", 0.03)
    model = metrics.of_model("chat", "smollm2:135m")
    model.finished("", 1.5, b"req-1")
    model.first_token.observe(0.3, b"req-1")
    model.per_token.observe(0.08, b"req-1")
    model.input.observe(9)
    model.output.observe(16)
    return metrics


def exposed(metrics: Metrics, form: str = "prometheus") -> list[Metric]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    if form == "prometheus":
        return list(read_prometheus(generate_latest(registry).decode()))
    return list(read_openmetrics(generate_openmetrics(registry).decode()))  # type: ignore[no-untyped-call]


def samples(metrics: Metrics, form: str = "prometheus") -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in exposed(metrics, form)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def series(families: list[Metric]) -> dict[str, set[str]]:
    """The name of every series as users write it, with its labels; a histogram has one."""
    found: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            name, labels = sample.name, set(sample.labels) - {"le"}
            if family.type == "histogram":
                name = family.name
            assert found.setdefault(name, labels) == labels
    return found


forms = pytest.mark.parametrize("form", ["prometheus", "openmetrics"])


@forms
def test_the_series_are_those_of_the_contract_and_a_few_of_our_own(form: str) -> None:
    assert series(exposed(busy(), form)) == CONTRACT | OWN


@forms
def test_every_family_is_explained(form: str) -> None:
    for family in exposed(busy(), form):
        assert family.documentation.endswith("."), family.name
        assert family.type in {"counter", "gauge", "histogram", "info"}


def test_both_formats_tell_the_same() -> None:
    metrics = busy()
    assert samples(metrics, "prometheus") == samples(metrics, "openmetrics")


@forms
def test_a_proxy_that_has_served_nothing_can_be_scraped(form: str) -> None:
    found = samples(Metrics("1.2.3"), form)
    assert found["ollama_proxy_build_info", (("version", "1.2.3"),)] == 1
    assert not [name for name, _ in found if "certificate" in name], "no certificate, no date"
    for phase in ("upload", "queue", "waiting", "streaming"):
        assert found["ollama_proxy_client_disconnects_total", (("phase", phase),)] == 0
    for kind in ("connect", "reset", "truncated", "malformed"):
        assert found["ollama_proxy_upstream_failures_total", (("kind", kind),)] == 0


def test_a_request_is_counted_by_route_method_and_code() -> None:
    metrics = busy()
    assert value(metrics, "ollama_proxy_requests_total", route="/api/chat", method="POST", code="200") == 1
    assert value(metrics, "ollama_proxy_requests_total", route="/api/chat", method="POST", code="499") == 1
    assert value(metrics, "ollama_proxy_received_bytes_total", route="/api/chat") == 15
    assert value(metrics, "ollama_proxy_sent_bytes_total", route="/api/chat") == 2000
    assert value(metrics, "ollama_proxy_request_duration_seconds_count", route="/api/chat") == 2
    assert value(metrics, "ollama_proxy_request_duration_seconds_sum", route="/api/chat") == pytest.approx(
        1.6
    )
    assert value(metrics, "ollama_proxy_time_to_first_byte_seconds_count", route="/api/chat") == 1
    assert value(metrics, "ollama_proxy_requests_in_flight", route="/api/chat") == 1
    assert value(metrics, "ollama_proxy_requests_in_flight", route="/api/tags") == 0


def test_every_row_of_the_route_table_and_other_can_be_counted() -> None:
    metrics = Metrics("1")
    for path in PATHS:
        metrics.routes[path].finished("GET", 200, 0, 0, 0.1)
    counted = [dict(labels) for name, labels in samples(metrics) if name == "ollama_proxy_requests_total"]
    assert {labels["route"] for labels in counted} == PATHS


def test_a_route_that_is_no_row_cannot_be_counted() -> None:
    with pytest.raises(KeyError):
        Metrics("1").routes["/api/chat/../secret"]


def test_what_is_denied_and_what_fails_is_counted_by_its_name() -> None:
    metrics = busy()
    metrics.denied["invalid_credentials"] = metrics.denied.get("invalid_credentials", 0) + 1
    metrics.denied["scope_denied"] = metrics.denied.get("scope_denied", 0) + 1
    assert value(metrics, "ollama_proxy_denied_total", code="invalid_credentials") == 2
    assert value(metrics, "ollama_proxy_denied_total", code="scope_denied") == 1
    assert value(metrics, "ollama_proxy_client_disconnects_total", phase="streaming") == 1
    assert value(metrics, "ollama_proxy_upstream_failures_total", kind="reset") == 1


def test_whether_ollama_answers_is_a_gauge() -> None:
    metrics = busy()
    assert value(metrics, "ollama_proxy_upstream_up", server="http://127.0.0.1:11434") == 1
    metrics.upstream_up["http://127.0.0.1:11434"] = False
    assert value(metrics, "ollama_proxy_upstream_up", server="http://127.0.0.1:11434") == 0


def test_what_others_know_is_asked_at_each_scrape() -> None:
    metrics = busy()
    assert value(metrics, "ollama_proxy_open_connections") == 7
    assert value(metrics, "ollama_proxy_log_lines_dropped_total") == 3
    assert value(metrics, "ollama_proxy_tls_certificate_expiry_timestamp_seconds") == 1_800_000_000
    metrics.open_connections = lambda: 8
    assert value(metrics, "ollama_proxy_open_connections") == 8


@settings(deadline=None)
@given(st.lists(st.text(max_size=10), max_size=50))
def test_methods_that_clients_make_up_are_one_label(methods: list[str]) -> None:
    metrics = Metrics("1")
    for method in methods:
        metrics.routes[OTHER].finished(method, 404, 0, 0, 0.1)
    counted = {
        dict(labels)["method"]: count
        for (name, labels), count in samples(metrics).items()
        if name == "ollama_proxy_requests_total"
    }
    assert set(counted) <= METHODS
    assert sum(counted.values()) == len(methods)


def test_the_number_of_series_stays_when_requests_go_on() -> None:
    metrics = busy()
    before = set(samples(metrics))
    for _ in range(3):
        metrics.routes["/api/chat"].finished("POST", 200, 1, 1, 3.0)
        metrics.routes[OTHER].finished("COOK", 404, 1, 1, 3.0)
    assert set(samples(metrics)) == before


@pytest.mark.parametrize("bounds", [DURATION_BUCKETS, LATENCY_BUCKETS])
def test_the_bounds_of_a_histogram_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


@given(st.lists(st.floats(0, 10_000), max_size=60))
def test_a_histogram_is_cumulative_and_counts_every_observation_once(observed: list[float]) -> None:
    histogram = Histogram(DURATION_BUCKETS)
    for seconds in observed:
        histogram.observe(seconds)
    expected = [float(sum(seconds <= bound for seconds in observed)) for bound in DURATION_BUCKETS]
    assert [count for _, count in histogram.buckets()] == [*expected, len(observed)]
    assert [bound for bound, _ in histogram.buckets()] == [*map(str, map(float, DURATION_BUCKETS)), "+Inf"]
    assert histogram.total == pytest.approx(sum(observed))


@settings(deadline=None)
@given(st.lists(st.floats(0, 10_000), min_size=1, max_size=30))
def test_a_histogram_reads_back_from_a_scrape_as_it_was_observed(observed: list[float]) -> None:
    metrics = Metrics("1")
    for seconds in observed:
        metrics.routes["/api/chat"].finished("POST", 200, 0, 0, seconds)
    for form in ("prometheus", "openmetrics"):
        found = samples(metrics, form)
        name, label = "ollama_proxy_request_duration_seconds", ("route", "/api/chat")
        for bound in DURATION_BUCKETS:
            labels = tuple(sorted([("le", str(float(bound))), label]))
            assert found[f"{name}_bucket", labels] == sum(seconds <= bound for seconds in observed)
        assert found[f"{name}_bucket", (("le", "+Inf"), label)] == len(observed)
        assert found[f"{name}_count", (label,)] == len(observed)
        assert found[f"{name}_sum", (label,)] == pytest.approx(sum(observed))
