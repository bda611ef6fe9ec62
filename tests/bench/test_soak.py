"""Clients, access log, metrics and ledger tell the same of a mixed load, or the soak notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bench.soak import account
from bench.soak.client import Seen
from bench.soak.report import missed, report
from bench.soak.run import Outcome, Plan, soak
from bench.soak.samples import Sample
from bench.soak.unrest import Events


def test_every_request_and_byte_of_a_mixed_load_is_accounted_for(tmp_path: Path) -> None:
    """Ollama is killed, a key is revoked in use, and the proxy reloads, all of it while clients ask."""
    plan = Plan(seconds=12, clients=40, pause=0.3, warm_up=0, every=4, at_rest=False)
    outcome = uvloop.run(soak(plan, tmp_path, lambda text: None))
    assert outcome.mismatches == []
    happened = outcome.events
    assert min(len(happened.outages), happened.keys, happened.reloads, happened.scrapes) > 0
    assert min(outcome.codes[code] for code in ("200", "201", "400", "401", "403", "404", "499")) > 0
    assert outcome.exit_code == 0


# What follows shows that the account can fail.

_SEEN = Seen(
    "1", "stream", "POST", "/api/chat", frozenset({200}), 1.0, upload=7, status=200, got=90, end="complete"
)
_LINE: dict[str, Any] = {
    "time": "2026-01-01T00:00:00.000Z",
    "request_id": "1", "method": "POST", "route": "/api/chat", "status": 200, "code": None, "key_id": "x",
    "key_name": "anna", "auth": "api_key", "model": "simulator:latest", "received_bytes": 7, "sent_bytes": 90,
    "input_tokens": 3, "output_tokens": 5, "outcome": "ok",
}  # fmt: skip
_METRICS = """\
ollama_proxy_requests_total{route="/api/chat",method="POST",code="200"} 1.0
ollama_proxy_received_bytes_total{route="/api/chat"} 7.0
ollama_proxy_sent_bytes_total{route="/api/chat"} 90.0
ollama_proxy_request_duration_seconds_count{route="/api/chat"} 1.0
ollama_proxy_tokens_total{key="anna",model="simulator:latest",type="input"} 3.0
ollama_proxy_tokens_total{key="anna",model="simulator:latest",type="output"} 5.0
ollama_proxy_config_reload_success 1.0
"""
_USAGE = {"key_name": "anna", "model": "simulator:latest", "input_tokens": 3, "output_tokens": 5}


def _never(start: float, end: float) -> bool:
    return False


def _clients(seen: Seen, line: dict[str, Any] | None, outage: Callable[[float, float], bool] = _never) -> int:
    return len(account.clients_against_log([seen], [] if line is None else [line], outage))


def test_what_is_the_same_everywhere_is_no_difference() -> None:
    assert account.log_against_metrics([_LINE], account.Scrape(_METRICS), {"1": _SEEN}) == []
    assert account.log_against_ledger([_LINE], [_USAGE]) == []
    assert _clients(replace(_SEEN, tokens=(3, 5)), _LINE) == 0


@pytest.mark.parametrize("line", _METRICS.splitlines())
def test_a_metric_that_is_one_off_is_told(line: str) -> None:
    name, _, value = line.rpartition(" ")
    wrong = _METRICS.replace(line, f"{name} {float(value) + 1}")
    (told,) = account.log_against_metrics([_LINE], account.Scrape(wrong), {"1": _SEEN})
    assert told.startswith(name.partition("{")[0].removeprefix("ollama_proxy_"))


@pytest.mark.parametrize("name", ["denied_total", "client_disconnects_total", "upstream_failures_total"])
def test_a_metric_of_nothing_that_happened_is_told(name: str) -> None:
    wrong = f'{_METRICS}ollama_proxy_{name}{{code="x",phase="waiting",kind="x"}} 1.0\n'
    assert account.log_against_metrics([_LINE], account.Scrape(wrong), {"1": _SEEN})


@pytest.mark.parametrize("rows", [[], [{**_USAGE, "output_tokens": 6}], [_USAGE, _USAGE]])
def test_usage_that_is_not_what_was_sent_is_told(rows: list[dict[str, Any]]) -> None:
    assert account.log_against_ledger([_LINE], rows)


@pytest.mark.parametrize(
    "change",
    [{"status": 201}, {"sent_bytes": 89}, {"received_bytes": 8}, {"received_bytes": 6}, {"route": "/"},
     {"output_tokens": 4}, {"input_tokens": None}, {"status": 499}, {"request_id": "2"}],
    ids=str,
)  # fmt: skip
def test_a_line_that_is_not_what_its_client_saw_is_told(change: dict[str, Any]) -> None:
    assert _clients(replace(_SEEN, tokens=(3, 5)), {**_LINE, **change})


def test_a_request_without_a_line_is_told() -> None:
    for end in ("complete", "torn", "left", "nothing"):
        assert _clients(replace(_SEEN, end=end), None), end


def test_answers_break_off_only_while_ollama_is_down() -> None:
    torn, line = replace(_SEEN, end="torn"), {**_LINE, "outcome": "upstream_failed"}
    assert _clients(torn, line)
    assert _clients(torn, line, lambda start, end: True) == 0


def test_of_a_client_that_left_the_line_holds_at_least_what_it_got() -> None:
    left = replace(_SEEN, end="left", left_in="streaming", upload=7)
    line = {**_LINE, "status": 499, "outcome": "client_closed"}
    assert _clients(left, line) == _clients(left, {**line, "sent_bytes": 91, "received_bytes": 6}) == 0
    assert _clients(left, {**line, "status": 200, "outcome": "ok"})
    assert _clients(replace(left, ended_at=2e9), {**line, "status": 200, "outcome": "ok"}) == 0  # it was slow
    assert _clients(left, {**line, "sent_bytes": 89})
    assert _clients(left, {**line, "received_bytes": 8})


def test_a_failure_of_ollama_counts_where_the_client_left_in_that_moment_too() -> None:
    line = {**_LINE, "status": 499, "outcome": "client_closed", "code": "upstream_unreachable"}
    seen = replace(_SEEN, end="left", left_in="waiting")
    wrong = account.log_against_metrics([line], account.Scrape(_METRICS), {"1": seen})
    assert [text for text in wrong if text.startswith("upstream_failures")] == [
        "upstream_failures_total: 0, not 1"
    ]


def _outcome(rss: Callable[[int], int], before: int = 2, after: int = 2) -> Outcome:
    plan = Plan(seconds=600, clients=1, pause=1, warm_up=120, every=60)
    found = Outcome(plan, Events(), [Sample(float(at), rss(at), rss(at), 20, 3) for at in range(600)])
    found.descriptors_before, found.descriptors_after = ["socket"] * before, ["socket"] * after
    return found


def test_memory_may_grow_while_it_warms_up_and_hardly_after_that() -> None:
    assert missed(_outcome(lambda at: 50_000 if at < 100 else 100_000 + at)) == []
    (told,) = missed(_outcome(lambda at: 100_000 + 40 * at))
    assert told.startswith("RSS grew by 1")


def test_a_descriptor_that_stays_is_told_with_what_it_is_open_on() -> None:
    (told,) = missed(_outcome(lambda at: 1, before=2, after=3))
    assert "3 descriptors" in told
    assert "{'socket': 1}" in told


def test_the_report_says_what_is_missed() -> None:
    outcome = _outcome(lambda at: 1, after=3)
    outcome.mismatches = ["one byte"]
    text = report(outcome)
    assert "MISSED: 3 descriptors" in text
    assert "DIFFERS: one byte" in text


def test_an_outage_covers_what_overlaps_it() -> None:
    events = Events([(10.0, 20.0), (time.monotonic(), float("inf"))])
    assert [events.in_outage(*span) for span in ((1, 8), (9, 11), (19, 30), (21, 22))] == [
        False,
        True,
        True,
        False,
    ]
