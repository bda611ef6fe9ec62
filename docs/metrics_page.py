"""docs/metrics.md: the families of proxy/observe/metrics.py, and what each is good for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from markdown import NOTICE, filled, table
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from proxy.observe.meter import OPERATIONS
from proxy.observe.metrics import EXEMPLAR_LENGTH, IssuerKeysState, Metrics
from proxy.observe.models import MOST_NAMES, UNLISTED
from proxy.policy.routes import OTHER, ROUTES


class Note(NamedTuple):
    """What a family is good for, and, for the main ones, a question that it answers."""

    use: str
    question: str = ""
    promql: str = ""


NOTES = {
    "ollama_proxy_requests_total": Note(
        "The first to look at: how much is asked, and what comes of it. Codes of Ollama are here too, as it "
        'sent them. Clients ask `route="/"` to see that something is there, so leave it out of ratios.',
        "Which share of requests failed, on our side or Ollama's?",
        'sum(rate(ollama_proxy_requests_total{route!="/", code=~"5..", code!="501"}[5m]))\n'
        '  / sum(rate(ollama_proxy_requests_total{route!="/", code!~"4..|501"}[5m]))',
    ),
    "ollama_proxy_request_duration_seconds": Note(
        "How long requests take as a whole, refused ones too. A long answer is no fault: for how long people "
        "wait, ask for the time to the first token.",
        "How long do the slowest five of a hundred requests of each route take?",
        "histogram_quantile(0.95,\n"
        "  sum by (route, le) (rate(ollama_proxy_request_duration_seconds_bucket[5m])))",
    ),
    "ollama_proxy_time_to_first_byte_seconds": Note(
        "The same question as that of the first token, by route instead of by model, and for every route.",
    ),
    "ollama_proxy_requests_in_flight": Note(
        "How many requests are open now. What Ollama does not serve at once (`OLLAMA_NUM_PARALLEL`) waits "
        "there.",
        "How many people are waiting for an answer or reading one?",
        'sum(ollama_proxy_requests_in_flight{route=~"/api/(chat|generate)|/v1/.*"})',
    ),
    "ollama_proxy_received_bytes_total": Note("How much is uploaded: long prompts, pictures, blobs."),
    "ollama_proxy_sent_bytes_total": Note("How much is sent back."),
    "ollama_proxy_added_latency_seconds": Note(
        "What the proxy itself costs: authentication, reading a body that must be judged, taking a "
        "connection. A body that its client uploads slowly counts, since it is waited for.",
        "How much time does the proxy add, at the 99th percentile?",
        "histogram_quantile(0.99, sum by (le) (rate(ollama_proxy_added_latency_seconds_bucket[5m])))",
    ),
    "ollama_proxy_requests_waiting": Note("Always 0 in this version: the queue comes with a later one."),
    "ollama_proxy_queue_wait_seconds": Note("Always 0 in this version, for the same reason."),
    "ollama_proxy_denied_total": Note(
        "Who is turned away, and why: [errors.md](errors.md) explains the codes. The audit lines of the log "
        "name addresses and keys.",
        "Which refusals rise?",
        "sum by (code) (rate(ollama_proxy_denied_total[10m]))",
    ),
    "ollama_proxy_client_disconnects_total": Note(
        "Where clients lose patience: `waiting` is before the first byte of the answer, `streaming` within "
        "it, `upload` before the request was complete. Such requests have the code 499.",
        "How many gave up before the first byte, of all who asked?",
        'sum(rate(ollama_proxy_client_disconnects_total{phase="waiting"}[1h]))\n'
        "  / sum(rate(ollama_proxy_requests_total[1h]))",
    ),
    "ollama_proxy_upstream_failures_total": Note(
        "How Ollama fails: `connect` is not there, `reset` closes before an answer, `truncated` within "
        "one, `malformed` is not HTTP. An error that Ollama writes into an answer which it began with 200 "
        "is `truncated` too.",
        "How does Ollama fail?",
        "sum by (kind) (increase(ollama_proxy_upstream_failures_total[1h]))",
    ),
    "ollama_proxy_upstream_up": Note("1 or 0. `/readyz` follows it."),
    "ollama_proxy_open_connections": Note(
        "`listen.max_connections` is the limit; see `queue_full` in [errors.md](errors.md)."
    ),
    "ollama_proxy_tls_certificate_expiry_timestamp_seconds": Note(
        "Missing where TLS is off.",
        "In how many days does the certificate end?",
        "(ollama_proxy_tls_certificate_expiry_timestamp_seconds - time()) / 86400",
    ),
    "ollama_proxy_jwks_age_seconds": Note(
        "Keys are read every 5 minutes. Above that, withdrawn keys still count, and new ones do not."
    ),
    "ollama_proxy_jwks_failures_total": Note("The log says why."),
    "ollama_proxy_tokens_total": Note(
        "Who uses what. For bills take `ollama-auth-proxy usage`, which outlives restarts. Output of a "
        "stream that broke off counts by its pieces; what is unknown counts as none.",
        "Who used how many tokens of which model today?",
        "sum by (key, model, type) (increase(ollama_proxy_tokens_total[1d]))",
    ),
    "ollama_proxy_model_load_seconds": Note(
        "Seconds above a few tenths mean that Ollama had to load the model: raise `OLLAMA_KEEP_ALIVE` or "
        "`OLLAMA_MAX_LOADED_MODELS`. OpenAI's and Anthropic's API do not tell it.",
        "How often is a model loaded anew? (Those that took longer than a second.)",
        "sum by (model) (rate(ollama_proxy_model_load_seconds_count[1h]))\n"
        '  - sum by (model) (rate(ollama_proxy_model_load_seconds_bucket{le="1.0"}[1h]))',
    ),
    "gen_ai_server_request_duration_seconds": Note(
        "`error_type` is empty where it went well; else the status of an error of Ollama's, the kind of "
        "failure, `client_closed` or `aborted`. Requests that the proxy refused are not in it.",
        "Which share of the requests of each model goes wrong?",
        "sum by (gen_ai_request_model)\n"
        '  (rate(gen_ai_server_request_duration_seconds_count{error_type!=""}[1h]))\n'
        "  / sum by (gen_ai_request_model) (rate(gen_ai_server_request_duration_seconds_count[1h]))",
    ),
    "gen_ai_server_time_to_first_token_seconds": Note(
        "How long people wait for an answer to begin, in streams. Waiting in Ollama and the load of the "
        "model are in it.",
        "How long does one of twenty wait, by model?",
        "histogram_quantile(0.95, sum by (gen_ai_request_model, le)\n"
        "  (rate(gen_ai_server_time_to_first_token_seconds_bucket[10m])))",
    ),
    "gen_ai_server_time_per_output_token_seconds": Note(
        "How fast text comes. Of streams it is measured here, the first piece left out; of other answers it "
        "is what Ollama tells of itself.",
        "How many tokens a second does a caller see, by model?",
        "sum by (gen_ai_request_model) (rate(gen_ai_server_time_per_output_token_seconds_count[10m]))\n"
        "  / sum by (gen_ai_request_model) (rate(gen_ai_server_time_per_output_token_seconds_sum[10m]))",
    ),
    "gen_ai_client_token_usage": Note(
        "How long prompts and answers are: what `num_ctx` must hold.",
        "How long are the longest prompts?",
        "histogram_quantile(0.99, sum by (gen_ai_request_model, le)\n"
        '  (rate(gen_ai_client_token_usage_bucket{gen_ai_token_type="input"}[1d])))',
    ),
    "ollama_proxy_config_reload_success": Note("0 also means that the proxy would not start again."),
    "ollama_proxy_config_reload_timestamp_seconds": Note("Whether a change has arrived at every replica."),
    "ollama_proxy_log_lines_dropped_total": Note(
        "Should stay 0. Requests are served, whatever the log does; what is dropped is missing in it."
    ),
    "ollama_proxy_build_info": Note("Always 1. Which version runs where."),
}

GROUPS = (
    ("Requests", ("ollama_proxy_request", "ollama_proxy_received", "ollama_proxy_sent", "ollama_proxy_open")),
    ("How long people wait", ("ollama_proxy_time_to", "ollama_proxy_added", "ollama_proxy_queue")),
    ("Models and tokens", ("gen_ai_", "ollama_proxy_tokens", "ollama_proxy_model")),
    ("What goes wrong", ("ollama_proxy_denied", "ollama_proxy_client", "ollama_proxy_upstream")),
    ("The proxy itself", ("ollama_proxy_",)),
)
"""Headings, and how the names below them begin; the first that fits counts."""


def families() -> list[Metric]:
    """Every family that the proxy can expose, with a sample of each, so that labels and buckets are seen."""
    metrics = Metrics("0")
    route = next(iter(metrics.routes.values()))
    route.finished("GET", 200, 0, 0, 0.0)
    metrics.denied["invalid_credentials"] = 1
    metrics.upstream_up["http://127.0.0.1:11434"] = True
    metrics.certificate_expiry = lambda: 0.0
    metrics.issuer_keys = lambda: [IssuerKeysState("https://id.example.com", 0.0, 0)]
    metrics.tokens_used("laptop", UNLISTED, 1, 1)
    metrics.model_loaded(UNLISTED, 0.0)
    model = metrics.of_model("chat", UNLISTED)
    model.finished("", 0.0, b"")
    for histogram in (model.first_token, model.per_token, model.input, model.output):
        histogram.observe(0.0)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return list(registry.collect())


def exposed_name(family: Metric) -> str:
    """The name that Prometheus knows it by."""
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def labels(family: Metric) -> list[str]:
    return [label for label in family.samples[0].labels if label != "le"]


def buckets(family: Metric) -> list[float]:
    bounds = dict.fromkeys(float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels)
    return [bound for bound in bounds if bound != math.inf]


def section(family: Metric) -> str:
    name = exposed_name(family)
    note = NOTES[name]
    named = ", ".join(f"`{label}`" for label in labels(family))
    of_labels = f"by {named}" if named else "without labels"
    text = f"### {name}\n\n{filled(f'*{family.type.capitalize()}, {of_labels}.* {family.documentation}')}\n"
    text += filled(note.use) + "\n"
    if bounds := buckets(family):
        text += filled(f"Buckets: {', '.join(number(bound) for bound in bounds)}.") + "\n"
    if note.promql:
        text += f"{note.question}\n\n```promql\n{note.promql}\n```\n\n"
    return text


def grouped(found: list[Metric]) -> Iterator[tuple[str, list[Metric]]]:
    rest = list(found)
    for heading, beginnings in GROUPS:
        mine = [family for family in rest if family.name.startswith(beginnings)]
        rest = [family for family in rest if family not in mine]
        yield heading, mine


def number(bound: float) -> str:
    return f"{bound:,.5f}".rstrip("0").rstrip(".")


def bounds() -> list[tuple[str, str]]:
    """What the values of each label can be."""
    routes = len({route.path for route in ROUTES})
    return [
        ("`route`", f"the {routes} paths of [routes.md](routes.md), and `{OTHER}` for everything else"),
        ("`method`", f"those of the table of routes, and `{OTHER}`"),
        (
            "`code`",
            "the statuses that were sent, and 499 where the client left; of `ollama_proxy_denied_total` the "
            "codes of [errors.md](errors.md)",
        ),
        (
            "`key`",
            "the names that operators gave to keys; `jwt` for all tokens together, `anonymous` for none",
        ),
        (
            "`model`, `gen_ai_request_model`",
            f"names that Ollama itself lists, in canonical form, {MOST_NAMES} at most in the life of the "
            f"process; `{UNLISTED}` for the rest",
        ),
        ("`issuer`, `server`", "those of the configuration"),
        (
            "`kind`, `phase`, `type`, `gen_ai_operation_name`, `gen_ai_token_type`, `error_type`",
            "fixed words, and statuses",
        ),
    ]


def metrics_page() -> str:
    found = families()
    names = {exposed_name(family) for family in found}
    if names != set(NOTES):
        raise ValueError(f"NOTES do not fit proxy/observe/metrics.py: {sorted(names ^ set(NOTES))}")
    overview = [
        (f"[`{name}`](#{name})", family.type, ", ".join(f"`{label}`" for label in labels(family)))
        for family in found
        for name in [exposed_name(family)]
    ]
    sections = "".join(
        f"## {heading}\n\n{''.join(section(family) for family in mine)}" for heading, mine in grouped(found)
    )
    exemplars = ", ".join(
        f"`{name}`"
        for name in (
            "ollama_proxy_request_duration_seconds",
            "gen_ai_server_request_duration_seconds",
            "gen_ai_server_time_to_first_token_seconds",
            "gen_ai_server_time_per_output_token_seconds",
        )
    )
    operations = "\n".join(
        f"- `{operation}`: " + ", ".join(f"`{path}`" for path, of in OPERATIONS.items() if of == operation)
        for operation in dict.fromkeys(OPERATIONS.values())
    )
    about_exemplars = filled(
        f"Asked for OpenMetrics, {exemplars} carry in each bucket the id of its last request, as "
        "`request_id`: the same that the answer has in `X-Request-Id` and the log in `request_id`. So a slow "
        "bucket leads to a line of the log. Prometheus keeps them with `--enable-feature=exemplar-storage`. "
        f"Ids of more than {EXEMPLAR_LENGTH} characters are left out."
    )
    return (
        f"""{NOTICE}
# Metrics

Served at `/metrics` of `ops.address`, in clear text, never on the public listener, as Prometheus text or,
where the scraper asks for it, as OpenMetrics. With `ops.token_file` the scraper sends the token as a Bearer.
Ready to use: [rules and alerts](../deploy/prometheus/rules.yml) and a
[dashboard](../deploy/grafana/dashboard.json); [operations.md](operations.md#monitoring) says how.

All begin at 0 when the proxy starts, as is usual; PromQL's `rate` and `increase` know that.
`ollama-auth-proxy usage` tells what has to outlive a restart.

{table(("name", "type", "labels"), overview)}
## What bounds the labels

No client can make a new series:

{table(("label", "values"), bounds())}
Models are asked for in the background, so one that was just pulled is `{UNLISTED}` for some seconds.
Histograms are by route or by model, never by key.

## Where the names come from

Names that begin with `gen_ai_` are OpenTelemetry's semantic conventions for generative AI in Prometheus'
spelling, so that dashboards for other servers fit; their buckets are OpenTelemetry's, with vLLM's on top for
what takes longer. `gen_ai_provider_name` is always `ollama`. `gen_ai_operation_name` is by route:

{operations}

## Exemplars

{about_exemplars}
{sections}""".rstrip()
        + "\n"
    )
