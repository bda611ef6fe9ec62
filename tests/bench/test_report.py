"""The tables say what was measured, and judge it by the promise."""

from __future__ import annotations

import pytest

from bench import report
from bench.document import BEGIN, END, replaced
from bench.figures import Limit

_GET = ("small-get", "ours"), ("small-get", "nginx"), ("small-get", "Caddy")


def _samples(ours: list[float], nginx: list[float], caddy: list[float]) -> report.Samples:
    columns = zip(_GET, (ours, nginx, caddy), strict=True)
    return {who: [{"cpu_us": value} for value in values] for who, values in columns}


def _cells(table: str, title: str) -> list[str]:
    lines = (line for line in table.splitlines() if line.startswith(f"| {title} "))
    return [cell.strip() for cell in next(lines).strip("|").split("|")]


def test_a_figure_is_the_median_of_its_rounds_and_its_ratio_that_of_the_medians() -> None:
    table = report.promised(_samples([30, 40, 300], [20, 20, 1], [100, 100, 100]))
    assert _cells(table, "CPU for a small GET") == [
        "CPU for a small GET",
        "40.0 µs",
        "675%",
        "20.0 µs",
        "100.0 µs",
        "0.40x Caddy, 2.00x nginx",
        "0.5x Caddy, 2.2x nginx",
        "0.35x Caddy, 1.6x nginx",
        "must",
    ]


@pytest.mark.parametrize(
    ("ours", "verdict"), [(30.0, "aim"), (34.0, "must"), (43.0, "must"), (45.0, "missed"), (51.0, "missed")]
)
def test_the_worst_of_its_ratios_is_the_verdict_on_a_figure(ours: float, verdict: str) -> None:
    samples = _samples([ours], [20], [100])
    assert _cells(report.promised(samples), "CPU for a small GET")[-1] == verdict
    assert report.missed(samples) == (["CPU for a small GET"] if verdict == "missed" else [])


def test_a_rate_must_be_at_least_its_limit() -> None:
    limit = Limit(20, 50, "FastAPI + httpx", at_least=True)
    assert [report.verdict(ratio, limit) for ratio in (19.9, 20, 49, 50)] == ["missed", "must", "must", "aim"]


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "must"), (1.1, "must"), (1.11, "missed")])
def test_a_figure_without_an_aim_is_judged_by_its_must(ratio: float, verdict: str) -> None:
    title = "CPU for a GET with a cached JWT, to one with a key"
    cells = _cells(report.promised({("cached-jwt", "ours"): [{"ratio": ratio}]}), title)
    assert cells[5:] == ["", "1.1 x", "", verdict]


def test_a_missing_peer_is_named_and_the_rest_is_judged() -> None:
    samples = {who: [{"cpu_us": 40.0}] for who in _GET[:2]}
    cells = _cells(report.promised(samples), "CPU for a small GET")
    assert cells[5] == "no Caddy, 1.00x nginx"
    assert cells[-1] == "not compared"


def test_what_was_not_measured_has_no_line() -> None:
    assert "401" not in report.promised(_samples([1], [1], [1]))


def test_a_run_replaces_only_what_stands_between_the_markers() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(document, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


@pytest.mark.parametrize("document", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_its_two_markers_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        replaced(document, "new")
