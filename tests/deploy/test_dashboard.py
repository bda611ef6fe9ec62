"""The dashboard and the numbers of the rules: a real Prometheus scrapes a real proxy that clients use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from ..wire.site import Keys, Site, free_port, make_key
from .prometheus import FOLDER as RULES
from .prometheus import Prometheus

GRAFANA = RULES.parent / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
VARIABLES = {one["name"]: one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"}
RECORDS = [
    rule["record"]
    for group in yaml.safe_load((RULES / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
]
ALWAYS_ZERO = {"In the proxy's queue now"}
MODEL = "smollm2:135m"
TOKEN = "canary-ops-token-41c7"


class Simulator:
    """The simulator of Ollama as a process of its own, which can be killed and come back on the same port."""

    def __init__(self) -> None:
        self.listen = f"127.0.0.1:{free_port()}"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        words = ["--tokens-per-second", "200", "--load-seconds", "0.5", "--listen", self.listen]
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy.simulator", *words], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert any("Ctrl-C" in line for line in process.stderr), "the simulator did not start"
        return process

    def stop(self) -> None:
        """End it as if it were killed; harmless when done twice."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()


class Mix(NamedTuple):
    """What was sent, from when to when (unix seconds), and who has seen it."""

    simulator: Simulator
    site: Site
    prometheus: Prometheus
    start: float
    end: float
    streamed: set[str]
    """Request ids of streamed answers."""


def chat(client: httpx.Client, key: str, **members: Any) -> httpx.Response:
    question = [{"role": "user", "content": "Hi"}]
    body = {"model": MODEL, "messages": question, **members}
    return client.post("/api/chat", json=body, headers={"Authorization": f"Bearer {key}"})


def send_a_round(client: httpx.Client, keys: dict[str, str]) -> set[str]:
    """Answers of every kind, refusals, a client that leaves; returns the request ids of streamed answers."""
    streamed = set()
    for name, key in keys.items():
        answer = chat(client, key)
        assert answer.status_code == 200, name
        streamed.add(answer.headers["X-Request-Id"])
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in keys.values())
    # Loads for a while, and leaves memory at once, so that the next one loads it again.
    assert chat(client, keys["alice"], model="slow", stream=False, keep_alive=0).status_code == 200
    openai = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    assert client.post("/v1/chat/completions", json=openai, headers=bob).status_code == 200
    embed = {"model": MODEL, "input": "Hi"}
    assert client.post("/api/embed", json=embed, headers=bob).status_code == 200
    assert client.get("/", headers=alice).status_code == 200
    assert client.get("/api/tags", headers=alice).status_code == 200
    assert '"error"' in chat(client, keys["bob"], model="error-midstream").text.splitlines()[-1]
    assert chat(client, keys["alice"], model="not-there").status_code == 404
    assert client.get("/api/tags").status_code == 401
    assert client.get("/api/tags", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.post("/api/pull", json={"model": MODEL}, headers=alice).status_code == 403
    assert client.get("/nowhere", headers=alice).status_code == 404
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    with client.stream("POST", "/api/chat", json=body, headers=alice) as answer:
        next(answer.iter_raw())
    return streamed


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mix]:
    """Two rounds of everything that happens to a proxy, each scraped."""
    directory = tmp_path_factory.mktemp("mix")
    store = directory / "keys.db"
    made = {name: make_key(store, name) for name in ("alice", "bob")}
    others = ("every", "read", "inference", "manage", "push", "account", "revoked", "expired")
    keys = Keys(store=store, default=made["alice"], **dict.fromkeys(others, made["bob"]))
    (directory / "token").write_text(TOKEN)
    (directory / "secret").write_text("s" * 32)
    issuer = {"issuer": "https://id.example.com", "audience": "ollama", "algorithms": ["HS256"]}
    with ExitStack() as stack:
        simulator = Simulator()
        stack.callback(simulator.stop)
        site = Site(
            directory / "site",
            keys,
            upstream={"url": f"http://{simulator.listen}"},
            ops={"token_file": str(directory / "token")},
            auth={"jwt": [{**issuer, "secret_file": str(directory / "secret")}]},
        )
        stack.callback(site.stop)
        (directory / "prometheus").mkdir()
        prometheus = Prometheus(directory / "prometheus", site.ops_port, TOKEN)
        stack.callback(prometheus.stop)
        assert site.trust is not None
        url = f"https://localhost:{site.port}"
        client = stack.enter_context(httpx.Client(base_url=url, verify=site.trust, trust_env=False))
        start = prometheus.wait_for("up == 1")
        streamed: set[str] = set()
        for number in (1, 2):
            streamed |= send_a_round(client, made)
            simulator.stop()
            for _ in range(3):
                assert chat(client, made["bob"]).status_code == 502
            simulator.restart()
            prometheus.wait_for(f'sum(ollama_proxy_requests_total{{code="502"}}) == {3 * number}')
        prometheus.wait_for("ollama_proxy_upstream_up == 1")
        # A request whose body is still to come is in flight.
        begun = stack.enter_context(closing(site.connect()))
        head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {made['bob']}\r\n"
        begun.send(f"{head}Content-Length: 9\r\n\r\n".encode())
        end = prometheus.wait_for(
            "job_code:ollama_proxy_denied:rate10m > 0 and on (job) ollama_proxy_requests_in_flight == 1"
        )
        yield Mix(simulator, site, prometheus, start, end, streamed)


def substituted(expr: str) -> str:
    """A query as Grafana sends it, with every choice at "All"."""
    for name, variable in VARIABLES.items():
        expr = expr.replace(f"${name}", variable["allValue"])
    expr = expr.replace("$__rate_interval", "30s").replace("$__range", "1m")
    assert "$" not in expr
    return expr


@pytest.mark.parametrize("title", PANELS)
def test_every_panel_shows_what_happened(title: str, mix: Mix) -> None:
    for target in PANELS[title]["targets"]:
        expr = substituted(target["expr"])
        if target["instant"]:
            numbers = mix.prometheus.at(expr, mix.end)
        else:
            numbers = mix.prometheus.between(expr, mix.start, mix.end)
        assert numbers, expr
        assert any(numbers) is (title not in ALWAYS_ZERO), expr


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_has_values_to_choose(name: str, mix: Mix) -> None:
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", VARIABLES[name]["query"]["query"])
    assert found
    select = {"match[]": found[1], "start": mix.start, "end": mix.end}
    values = set(mix.prometheus.get(f"label/{found[2]}/values", **select))
    expected = {"job": "ollama-auth-proxy", "route": "/api/chat", "model": MODEL, "key": "alice"}
    assert expected[name] in values


def test_the_mark_of_a_changed_configuration_is_a_query_that_holds(mix: Mix) -> None:
    (mark,) = DASHBOARD["annotations"]["list"]
    mix.prometheus.at(substituted(mark["expr"]), mix.end)


@pytest.mark.parametrize("record", RECORDS)
def test_every_recorded_number_is_there(record: str, mix: Mix) -> None:
    assert any(mix.prometheus.at(record, mix.end)), record


def test_what_prometheus_has_is_what_was_sent(mix: Mix) -> None:
    expected = {
        'ollama_proxy_requests_total{code="502"}': 6,
        'ollama_proxy_requests_total{route="/",code="200"}': 2,
        'ollama_proxy_requests_total{code="499"}': 2,
        "ollama_proxy_denied_total": 6,
        'ollama_proxy_denied_total{code="missing_credentials"}': 2,
        'ollama_proxy_denied_total{code="scope_denied"}': 2,
        'ollama_proxy_client_disconnects_total{phase="streaming"}': 2,
        'ollama_proxy_upstream_failures_total{kind="connect"}': 6,
        'ollama_proxy_upstream_failures_total{kind="truncated"}': 2,
        f'gen_ai_server_time_to_first_token_seconds_count{{gen_ai_request_model="{MODEL}"}}': 6,
    }
    assert {expr: mix.prometheus.at(f"sum({expr})", mix.end) for expr in expected} == {
        expr: [number] for expr, number in expected.items()
    }


def test_a_slow_answer_leads_to_its_line_in_the_log(mix: Mix) -> None:
    """By an exemplar, which Grafana shows beside the line."""
    (target, *_) = PANELS["Time to the first token"]["targets"]
    assert target["exemplar"]
    select = {"query": substituted(target["expr"]), "start": mix.start, "end": mix.end}
    found = mix.prometheus.get("query_exemplars", **select)
    ids = {one["labels"]["request_id"] for series in found for one in series["exemplars"]}
    assert ids & mix.streamed
    assert all(mix.site.logged(one)["route"] for one in ids)


def test_every_metric_that_is_named_exists(mix: Mix) -> None:
    """In the rules, their cases and the dashboard; names of counters and of parts of histograms too."""
    known = set(mix.prometheus.get("label/__name__/values"))
    named = re.compile(r"(?<![\w:])(?:ollama_proxy|gen_ai_(?:server|client))_\w+")
    for file in (*RULES.glob("*.yml"), GRAFANA / "dashboard.json"):
        names = set(named.findall(file.read_text()))
        assert len(names) > 5 or file.name == "prometheus.yml"
        # A text for people may name a histogram without a suffix.
        missing = {name for name in names if name not in known and f"{name}_bucket" not in known}
        assert not missing, file


def test_ollama_that_is_away_becomes_an_alert(mix: Mix) -> None:
    mix.simulator.stop()
    mix.prometheus.wait_for('ALERTS{alertname="OllamaDown"}')
    alerts = {one["labels"]["alertname"]: one for one in mix.prometheus.get("alerts")["alerts"]}
    summary = alerts["OllamaDown"]["annotations"]["summary"]
    assert summary == f"Ollama at http://{mix.simulator.listen} does not answer; the proxy before it is well."


def test_the_dashboard_is_what_its_script_writes() -> None:
    written = subprocess.run(
        [sys.executable, GRAFANA / "dashboard.py"], capture_output=True, text=True, timeout=30, check=True
    )
    assert written.stdout == (GRAFANA / "dashboard.json").read_text(), (
        "run: python deploy/grafana/dashboard.py > deploy/grafana/dashboard.json"
    )


def test_panels_fit_on_the_page_and_say_what_they_show() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["description"] for panel in PANELS.values())
