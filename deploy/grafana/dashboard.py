"""Writes dashboard.json, the Grafana dashboard of ollama-auth-proxy: python dashboard.py > dashboard.json

A panel is a line or two here and forty there. Metrics are told in docs/metrics.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    """``legend`` names a line by its labels, as in ``{{model}}``."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """``kind`` is Grafana's name of the panel's type; ``unit`` is one of Grafana's units.

    ``more`` is for the value's own look. With ``exemplars``, request ids stand beside the lines.
    """

    title: str
    meaning: str
    unit: str
    queries: list[Query]
    kind: str = "timeseries"
    width: int = 8
    more: Mapping[str, Any] = MappingProxyType({})
    exemplars: bool = False


def quantiles(metric: str, labels: str, by: str, legend: str, *numbers: float) -> list[Query]:
    """Quantiles of a histogram, by some of its labels."""
    grouped = f"le, {by}" if by else "le"
    rate = f"sum by ({grouped}) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    return [
        Query(f"histogram_quantile({number}, {rate})", f"p{number * 100:g} {legend}".strip())
        for number in numbers
    ]


def rates(metric: str, labels: str, by: str) -> list[Query]:
    """How fast a counter grows, by one of its labels."""
    return [Query(f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))", f"{{{{{by}}}}}")]


JOB = 'job=~"$job"'
MODEL = f'{JOB}, gen_ai_request_model=~"$model"'
TOKENS = f'{JOB}, key=~"$key", model=~"$model"'
REQUESTS = f'{JOB}, route=~"$route"'

# What the alerts take for a request and for an error, see deploy/prometheus/rules.yml.
COUNTED = f'sum(increase(ollama_proxy_requests_total{{{JOB}, route!="/", code!~"4..|501"}}[$__range]))'
ERRORS = (
    f'sum(increase(ollama_proxy_requests_total{{{JOB}, route!="/", code=~"5..", code!="501"}}[$__range]))'
)
BROKEN = f'sum(increase(ollama_proxy_upstream_failures_total{{{JOB}, kind="truncated"}}[$__range]))'


def states(*steps: tuple[str, float | None]) -> dict[str, Any]:
    """Colours of a value, each with where it begins."""
    return {
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": color, "value": begins} for color, begins in steps],
        }
    }


YES_NO: dict[str, Any] = {
    "mappings": [
        {
            "type": "value",
            "options": {"0": {"text": "no", "color": "red"}, "1": {"text": "yes", "color": "green"}},
        }
    ],
    **states(("red", None), ("green", 1)),
}

ROWS: dict[str, list[Panel]] = {
    "Is it up?": [
        Panel(
            "Proxies up",
            "Proxies that Prometheus gets metrics from.",
            "none",
            [Query(f"sum(up{{{JOB}}})")],
            "stat",
            3,
            states(("red", None), ("green", 1)),
        ),
        Panel(
            "Ollama answers",
            "Whether every Ollama answered the last probe.",
            "none",
            [Query(f"min(ollama_proxy_upstream_up{{{JOB}}})")],
            "stat",
            3,
            YES_NO,
        ),
        Panel(
            "Requests that fail",
            "Of the time shown: 5xx, and answers that Ollama broke off. Faults of clients do not count.",
            "percentunit",
            [Query(f"(({ERRORS} or vector(0)) + {BROKEN}) / {COUNTED}")],
            "stat",
            3,
            states(("green", None), ("orange", 0.01), ("red", 0.06)),
        ),
        Panel(
            "Requests now",
            "Requests that are not over yet.",
            "none",
            [Query(f"sum(ollama_proxy_requests_in_flight{{{JOB}}})")],
            "stat",
            3,
        ),
        Panel(
            "Connections",
            "Open connections of clients.",
            "none",
            [Query(f"sum(ollama_proxy_open_connections{{{JOB}}})")],
            "stat",
            3,
        ),
        Panel(
            "Certificate ends in",
            "The first of them, where there are several proxies. Empty where the proxy does not do TLS.",
            "s",
            [Query(f"min(ollama_proxy_tls_certificate_expiry_timestamp_seconds{{{JOB}}}) - time()")],
            "stat",
            3,
            states(("red", None), ("orange", 3 * 86400), ("green", 14 * 86400)),
        ),
        Panel(
            "Configuration in force",
            "No: a change was refused, and the old configuration holds.",
            "none",
            [Query(f"min(ollama_proxy_config_reload_success{{{JOB}}})")],
            "stat",
            3,
            YES_NO,
        ),
        Panel(
            "Versions",
            "How many proxies run which version.",
            "none",
            [Query(f"count by (version) (ollama_proxy_build_info{{{JOB}}})", "{{version}}")],
            "stat",
            3,
        ),
    ],
    "Who uses it?": [
        Panel(
            "Tokens a minute by key",
            "Read and written, as Ollama counted them.",
            "short",
            [
                Query(
                    f"60 * sum by (key) (rate(ollama_proxy_tokens_total{{{TOKENS}}}[$__rate_interval]))",
                    "{{key}}",
                )
            ],
        ),
        Panel(
            "Tokens by key in the time shown",
            "For hours and days past, ask `ollama-auth-proxy usage`.",
            "short",
            [
                Query(
                    f"sort_desc(sum by (key) (increase(ollama_proxy_tokens_total{{{TOKENS}}}[$__range])))",
                    "{{key}}",
                )
            ],
            "bargauge",
        ),
        Panel(
            "Requests a second by route",
            "All of them, refused ones too. `other` has no route.",
            "reqps",
            rates("ollama_proxy_requests_total", REQUESTS, "route"),
        ),
    ],
    "How long do people wait, and why?": [
        Panel(
            "Time to the first token",
            "Of streamed answers, with everything before: the queue, loading the model, reading the prompt.",
            "s",
            quantiles(
                "gen_ai_server_time_to_first_token_seconds",
                MODEL,
                "gen_ai_request_model",
                "{{gen_ai_request_model}}",
                0.5,
                0.95,
            ),
            exemplars=True,
        ),
        Panel(
            "Loading models",
            "How long Ollama took to have the model loaded, for each request; loads of nothing count too.",
            "s",
            quantiles(
                "ollama_proxy_model_load_seconds",
                f'{JOB}, model=~"$model"',
                "model",
                "{{model}}",
                0.5,
                0.95,
            ),
        ),
        Panel(
            "Whole answers",
            "From the end of the request's head to the end of the answer.",
            "s",
            quantiles(
                "gen_ai_server_request_duration_seconds",
                MODEL,
                "gen_ai_request_model",
                "{{gen_ai_request_model}}",
                0.5,
                0.95,
            ),
        ),
        Panel(
            "Waiting in the proxy's queue",
            "This version has no queue, so nobody waits.",
            "s",
            quantiles("ollama_proxy_queue_wait_seconds", JOB, "", "", 0.5, 0.95),
            width=6,
        ),
        Panel(
            "In the proxy's queue now",
            "This version has no queue, so nobody waits.",
            "none",
            [Query(f"sum(ollama_proxy_requests_waiting{{{JOB}}})", "waiting")],
            width=6,
        ),
        Panel(
            "Requests at once by route",
            "More than Ollama serves at once (OLLAMA_NUM_PARALLEL) wait there.",
            "none",
            [Query(f"sum by (route) (ollama_proxy_requests_in_flight{{{REQUESTS}}}) > 0", "{{route}}")],
            width=6,
        ),
        Panel(
            "Added by the proxy",
            "Its own time before it forwards a request.",
            "s",
            quantiles("ollama_proxy_added_latency_seconds", JOB, "", "", 0.5, 0.99),
            width=6,
        ),
    ],
    "What does each model cost?": [
        Panel(
            "Tokens a minute by model",
            "Input is prompts, output is answers.",
            "short",
            [
                Query(
                    f"60 * sum by (model, type)"
                    f" (rate(ollama_proxy_tokens_total{{{TOKENS}}}[$__rate_interval]))",
                    "{{model}} {{type}}",
                )
            ],
            width=6,
        ),
        Panel(
            "Requests at once by model",
            "On average: the time that answers took in a second.",
            "none",
            [
                Query(
                    f"sum by (gen_ai_request_model)"
                    f" (rate(gen_ai_server_request_duration_seconds_sum{{{MODEL}}}[$__rate_interval]))",
                    "{{gen_ai_request_model}}",
                )
            ],
            width=6,
        ),
        Panel(
            "Seconds of loading by model",
            "In the time shown. Much of it: models push each other out, or leave memory too soon.",
            "s",
            [
                Query(
                    f"sort_desc(sum by (model)"
                    f' (increase(ollama_proxy_model_load_seconds_sum{{{JOB}, model=~"$model"}}[$__range])))',
                    "{{model}}",
                )
            ],
            "bargauge",
            6,
        ),
        Panel(
            "Time for each output token",
            "After the first one. People read about 0.2 s a word.",
            "s",
            quantiles(
                "gen_ai_server_time_per_output_token_seconds",
                MODEL,
                "gen_ai_request_model",
                "{{gen_ai_request_model}}",
                0.5,
                0.95,
            ),
            width=6,
        ),
        Panel(
            "Tokens of a request",
            "How long prompts and answers are.",
            "short",
            quantiles(
                "gen_ai_client_token_usage",
                MODEL,
                "gen_ai_token_type",
                "{{gen_ai_token_type}}",
                0.5,
                0.95,
            ),
            width=12,
        ),
        Panel(
            "Bytes a second",
            "Bodies of requests and answers.",
            "Bps",
            [
                Query(
                    f"sum(rate(ollama_proxy_received_bytes_total{{{REQUESTS}}}[$__rate_interval]))",
                    "received",
                ),
                Query(f"sum(rate(ollama_proxy_sent_bytes_total{{{REQUESTS}}}[$__rate_interval]))", "sent"),
            ],
            width=12,
        ),
    ],
    "What is refused, and what fails?": [
        Panel(
            "Refused, by code",
            "400, 401, 403 and 429 of the proxy's own. docs/errors.md tells what each code means.",
            "reqps",
            rates("ollama_proxy_denied_total", JOB, "code"),
        ),
        Panel(
            "Requests a second by status",
            "499: the client left before the end.",
            "reqps",
            rates("ollama_proxy_requests_total", REQUESTS, "code"),
        ),
        Panel(
            "Failures of Ollama, by kind",
            "connect: not reached; reset, truncated: broke off; malformed: not an answer.",
            "reqps",
            rates("ollama_proxy_upstream_failures_total", JOB, "kind"),
        ),
        Panel(
            "Failed answers of models, by type",
            "Codes of Ollama's, kinds of failures, or client_closed.",
            "reqps",
            rates("gen_ai_server_request_duration_seconds_count", f'{MODEL}, error_type!=""', "error_type"),
        ),
        Panel(
            "Clients that left, by phase",
            "waiting: before the first byte, most often because it took too long.",
            "reqps",
            rates("ollama_proxy_client_disconnects_total", JOB, "phase"),
        ),
        Panel(
            "Keys of issuers of JWTs",
            "Time since they were last read; it is five minutes at most where all is well.",
            "s",
            [Query(f"max by (issuer) (ollama_proxy_jwks_age_seconds{{{JOB}}})", "{{issuer}}")],
        ),
    ],
}


def variable(name: str, label: str, values_of: str) -> dict[str, Any]:
    """A choice above the panels, of the values that a label has."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({values_of})", "refId": name},
        "definition": f"label_values({values_of})",
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def targets(panel: Panel) -> list[dict[str, Any]]:
    at_once = panel.kind != "timeseries"
    return [
        {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "range": not at_once,
            "instant": at_once,
            "exemplar": panel.exemplars,
            "editorMode": "code",
        }
        for number, query in enumerate(panel.queries)
    ]


def shown(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """The panel as Grafana wants it; places are in columns and rows of its grid."""
    defaults: dict[str, Any] = {"unit": panel.unit, **panel.more}
    options: dict[str, Any]
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": {"fillOpacity": 8, "showPoints": "never", "lineWidth": 1}}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}}
        if panel.kind == "stat":
            options |= {"graphMode": "none", "colorMode": "value", "textMode": "auto"}
        else:
            defaults["min"] = 0
            options |= {"orientation": "horizontal", "displayMode": "basic"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height(panel)},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets(panel),
    }


def height(panel: Panel) -> int:
    return 4 if panel.kind == "stat" else 8


def panels() -> list[dict[str, Any]]:
    """All of them, row by row from left to right."""
    made: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + 8
            made.append(shown(panel, len(made) + 1, x, y))
            x += panel.width
        y += height(row[-1])
    return made


def dashboard() -> dict[str, Any]:
    return {
        "uid": "ollama-auth-proxy",
        "title": "ollama-auth-proxy",
        "description": "Is it up, who uses it, how long do people wait, what does it cost, what is refused.",
        "tags": ["ollama"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "type": "datasource",
                    "name": "datasource",
                    "label": "Prometheus",
                    "query": "prometheus",
                    "current": {},
                    "hide": 0,
                },
                variable("job", "Job", "ollama_proxy_build_info, job"),
                variable("route", "Route", "ollama_proxy_requests_total, route"),
                variable("model", "Model", "ollama_proxy_tokens_total, model"),
                variable("key", "Key", "ollama_proxy_tokens_total, key"),
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Configuration changed",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "blue",
                    "expr": f"changes(ollama_proxy_config_reload_timestamp_seconds{{{JOB}}}[1m]) > 0",
                    "titleFormat": "Configuration changed",
                    "textFormat": "{{instance}}",
                }
            ]
        },
        "links": [],
        "panels": panels(),
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=2)
    print()
