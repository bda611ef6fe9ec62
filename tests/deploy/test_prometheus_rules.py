"""Alerts that fire when they should, and only then; shown by Prometheus' own tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .prometheus import FOLDER, program

RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
CASES = ("rules_test.yml", "rules_hours_test.yml")


def promtool(*arguments: str) -> str:
    """What it prints; fails where it finds a fault."""
    done = subprocess.run(
        [program("promtool"), *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def cases() -> list[dict[str, Any]]:
    return [case for file in CASES for case in yaml.safe_load((FOLDER / file).read_text())["tests"]]


def fired(case: dict[str, Any]) -> set[str]:
    """The alerts that a case expects to fire."""
    samples = (sample for test in case["promql_expr_test"] for sample in test["exp_samples"])
    return {name for sample in samples for name in re.findall(r'alertname="(\w+)"', sample["labels"])}


def test_prometheus_takes_the_rules_and_the_configuration(tmp_path: Path) -> None:
    assert "rules found" in promtool("check", "rules", "rules.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


@pytest.mark.parametrize("file", CASES)
def test_alerts_fire_when_they_should_and_only_then(file: str) -> None:
    promtool("test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_was_seen_to_fire_and_not_to_fire(alert: str) -> None:
    own = [case for case in cases() if case["name"].startswith(f"{alert} ")]
    for case in own:
        verb = case["name"].removeprefix(f"{alert} ").partition(":")[0]
        assert verb in ("fires", "does not fire")
        assert (alert in fired(case)) is (verb == "fires"), case["name"]
        assert any("ALERTS" in test["expr"] for test in case["promql_expr_test"])
    assert {alert in fired(case) for case in own} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_is_wrong_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    page = FOLDER.parents[1] / file
    assert file == "docs/operations.md"
    if page.exists():
        titles = re.findall(r"(?m)^#+ (.+)$", page.read_text())
        anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert anchor in anchors
