"""Whether clients, access log, metrics and ledger tell the same, to the request and the byte. Pure.

The log stands between the other two: each of its lines is one exchange, which its client recorded under the
same id, and the sums of its lines are the metrics. Where a client left, only the proxy knows how much it had
sent; there the client's record bounds the line.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.soak.client import Seen

DENIED = frozenset({400, 401, 403, 429})
CLIENT_LEFT = 499
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE"})

Line = Mapping[str, Any]
Labels = tuple[str, ...]


class Scrape:
    """What `/metrics` told at the end."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append((dict(sample.labels), sample.value))

    def by(self, name: str, *labels: str) -> Counter[Labels]:
        """The values of a metric by these labels; zeros are left out."""
        found: Counter[Labels] = Counter()
        for given, value in self._samples.get(name, []):
            if value:
                found[tuple(given.get(label, "") for label in labels)] += int(value)
        return found

    def total(self, name: str) -> int:
        return sum(int(value) for _, value in self._samples.get(name, []))


def log_against_metrics(lines: Sequence[Line], scrape: Scrape, seen: Mapping[str, Seen]) -> list[str]:
    """Each sum of the log's lines is the metric. ``seen`` tells in which phase a client left."""
    requests: Counter[Labels] = Counter()
    received: Counter[Labels] = Counter()
    sent: Counter[Labels] = Counter()
    counts: Counter[Labels] = Counter()
    denied: Counter[Labels] = Counter()
    failed = left = 0
    phases: Counter[Labels] = Counter()
    for line in lines:
        route, status = line["route"], line["status"]
        method = line["method"] if line["method"] in _METHODS else "other"
        requests[route, method, str(status)] += 1
        received[route,] += line["received_bytes"]
        sent[route,] += line["sent_bytes"]
        counts[route,] += 1
        if line["code"] and status in DENIED and line["outcome"] in ("denied", "aborted"):
            denied[line["code"],] += 1
        # Ollama may fail in the moment in which the client leaves: 499, and the code of the failure.
        failed += line["outcome"] == "upstream_failed" or (
            status == CLIENT_LEFT and str(line["code"]).startswith("upstream_")
        )
        if status == CLIENT_LEFT:
            left += 1
            phases[seen[line["request_id"]].left_in if line["request_id"] in seen else "?",] += 1
    told_requests = scrape.by("ollama_proxy_requests_total", "route", "method", "code")
    found = _differences("requests_total", requests, told_requests)
    found += _differences(
        "received_bytes_total", +received, scrape.by("ollama_proxy_received_bytes_total", "route")
    )
    found += _differences("sent_bytes_total", +sent, scrape.by("ollama_proxy_sent_bytes_total", "route"))
    found += _differences(
        "request_duration_seconds_count",
        counts,
        scrape.by("ollama_proxy_request_duration_seconds_count", "route"),
    )
    found += _differences("denied_total", denied, scrape.by("ollama_proxy_denied_total", "code"))
    found += _differences(
        "client_disconnects_total", phases, scrape.by("ollama_proxy_client_disconnects_total", "phase")
    )
    found += _same("upstream_failures_total", failed, scrape.total("ollama_proxy_upstream_failures_total"))
    found += _same("lines of clients that left", left, scrape.total("ollama_proxy_client_disconnects_total"))
    found += _same("log_lines_dropped", 0, scrape.total("ollama_proxy_log_lines_dropped_total"))
    found += _same("requests_in_flight", 0, scrape.total("ollama_proxy_requests_in_flight"))
    found += _same("open_connections", 0, scrape.total("ollama_proxy_open_connections"))
    found += _same("config_reload_success", 1, scrape.total("ollama_proxy_config_reload_success"))
    tokens = _tokens_of_lines(lines)
    found += _differences(
        "tokens_total", tokens, scrape.by("ollama_proxy_tokens_total", "key", "model", "type")
    )
    return found


def log_against_ledger(lines: Sequence[Line], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The tokens that the command `usage` tells are those of the log's lines."""
    told: Counter[Labels] = Counter()
    for row in rows:
        for kind in ("input", "output"):
            if row[f"{kind}_tokens"]:
                told[row["key_name"], row["model"] or "", kind] += row[f"{kind}_tokens"]
    return _differences("usage", _tokens_of_lines(lines), told)


def clients_against_log(
    seen: Sequence[Seen], lines: Sequence[Line], in_outage: Callable[[float, float], bool]
) -> list[str]:
    """Each exchange has one line, which tells what its client saw; no line is of anything else."""
    by_id: dict[str, Line] = {}
    found = []
    for line in lines:
        if by_id.setdefault(line["request_id"], line) is not line:
            found.append(f"two lines of {line['request_id']}")
    for exchange in seen:
        line_of_it = by_id.pop(exchange.request_id, None)
        if line_of_it is None:
            # A connection may end before the head of a request is read: then nobody has counted it.
            if exchange.end not in ("nothing", "left"):
                found.append(f"{_name(exchange)}: no line in the log")
            elif exchange.end == "nothing" and exchange.kind != "half a head":
                found.append(f"{_name(exchange)}: neither an answer nor a line in the log")
            elif exchange.end == "left":
                found.append(f"{_name(exchange)}: left, and no line in the log")
            continue
        found += [f"{_name(exchange)}: {what}" for what in _one(exchange, line_of_it, in_outage)]
    found += [f"a line of nobody: {line['route']} {line['status']} {line['code']}" for line in by_id.values()]
    return found


def _one(seen: Seen, line: Line, in_outage: Callable[[float, float], bool]) -> list[str]:
    found = []
    outage = in_outage(seen.began, seen.ended)
    method = line["method"] if line["method"] in _METHODS else "other"
    if (method, line["route"]) != (seen.method, seen.route):
        found.append(f"the log says {method} {line['route']}")
    if seen.end == "left":
        in_time = datetime.fromisoformat(line["time"]).timestamp() > seen.ended_at
        if line["status"] != CLIENT_LEFT and in_time and not outage and not seen.revocable:
            found.append(f"left in {seen.left_in}, the log says {line['status']} {line['outcome']}")
        if line["received_bytes"] > seen.upload or line["sent_bytes"] < seen.got:
            found.append(f"bytes {line['received_bytes']}/{line['sent_bytes']}, not {seen.upload}/{seen.got}")
        return found
    if line["status"] == CLIENT_LEFT:
        return [*found, "it stayed, the log says 499"]
    if seen.end == "nothing":
        return [*found, f"no answer, the log says {line['status']} {line['outcome']}"]
    if line["status"] != seen.status:
        found.append(f"got {seen.status}, the log says {line['status']}")
    if seen.end == "torn" and not outage and not seen.revocable:
        found.append("the answer broke off while Ollama was well")
    if seen.status not in seen.expected and not (outage and seen.forwarded and seen.status in (502, 404)):
        found.append(f"got {seen.status} {line['code']}, expected {sorted(seen.expected)}")
    if line["sent_bytes"] != seen.got:
        found.append(
            f"{seen.end}, got {seen.got} bytes, the log says {line['sent_bytes']} ({line['outcome']})"
        )
    answered_early = line["outcome"] == "denied" or line["status"] >= 400 or seen.end == "torn"
    if line["received_bytes"] != seen.upload and not (
        answered_early and line["received_bytes"] < seen.upload
    ):
        found.append(f"sent {seen.upload} bytes, the log says {line['received_bytes']}")
    if seen.tokens is not None:
        told = line["input_tokens"], line["output_tokens"]
        if told != seen.tokens:
            found.append(f"{seen.end}, tokens {seen.tokens}, the log says {told}")
    return found


def _tokens_of_lines(lines: Sequence[Line]) -> Counter[Labels]:
    tokens: Counter[Labels] = Counter()
    for line in lines:
        key = line["key_name"] if line["key_id"] else line["auth"]
        for kind in ("input", "output"):
            if line[f"{kind}_tokens"]:
                tokens[key, line["model"], kind] += line[f"{kind}_tokens"]
    return tokens


def _name(seen: Seen) -> str:
    return f"{seen.kind} {seen.method} {seen.route} ({seen.request_id})"


def _differences(name: str, ours: Mapping[Labels, int], told: Mapping[Labels, int]) -> list[str]:
    return [
        f"{name}{list(labels)}: {told.get(labels, 0)}, and {ours.get(labels, 0)} by the log"
        for labels in sorted({*ours, *told})
        if ours.get(labels, 0) != told.get(labels, 0)
    ]


def _same(name: str, ours: int, told: int) -> list[str]:
    return [] if ours == told else [f"{name}: {told}, not {ours}"]
