"""docker-compose.yml on a real engine, used as an operator does: from nothing to a streamed answer, and back.

Of its parts Grafana alone is not started: what it is given is looked at instead.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from ..wire.site import free_port
from .docker import (
    BUILD_TIMEOUT,
    MODEL,
    MODELS,
    ROOT,
    Compose,
    done,
    need_engine,
    need_images,
    need_model,
)

pytestmark = pytest.mark.xdist_group("docker")

FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
IMAGES = [FILE["services"][service]["image"] for service in ("namespace", "ollama", "prometheus")]
START_TIMEOUT = 60.0


DASHBOARDS = "/var/lib/grafana-dashboards"
RUN = f"""#!/usr/local/bin/python3
import json, os, pathlib
def files(folder):
    return {{file.name: file.read_text() for file in pathlib.Path(folder).iterdir()}}
print(json.dumps({{
    "password": os.environ["GF_SECURITY_ADMIN_PASSWORD"],
    "sources": files("/etc/grafana/provisioning/datasources"),
    "providers": files("/etc/grafana/provisioning/dashboards"),
    "dashboards": files("{DASHBOARDS}"),
}}))
"""
"""In the place of the program that Grafana's image starts."""


class Site:
    """The project after `up`, as a client and its operator see it."""

    def __init__(self, compose: Compose, port: int, folder: Path) -> None:
        self.compose = compose
        self.url = f"https://localhost:{port}"
        self.key = ""
        self.certificate = folder / "tls.crt"

    def client(self, key: str = "") -> httpx.Client:
        trust = ssl.create_default_context(cafile=self.certificate)
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, verify=trust, headers=headers, timeout=60, trust_env=False)

    def inspect(self, service: str) -> Any:
        return json.loads(done("docker", "inspect", self.compose.container(service)))[0]

    def address(self) -> str:
        """Of the namespace, in the network of the project."""
        (network,) = self.inspect("namespace")["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def query(self, expression: str) -> str:
        words = ["exec", "-T", "prometheus", "promtool", "query", "instant", "http://127.0.0.1:9090"]
        return self.compose.done(*words, expression)


def chat(tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Count to twenty."}]
    options = {"num_predict": tokens, "temperature": 0, "num_thread": 1}  # two, and a busy core slows both
    return {"model": MODEL, "messages": messages, "options": options}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A first key, then `up` of all that can be had here; what the steps must print is checked on the way."""
    need_images(*IMAGES)
    need_model()
    folder = tmp_path_factory.mktemp("compose")
    port = free_port()
    compose = Compose(
        f"compose-{uuid4().hex[:8]}",
        _for_tests(folder),
        PROXY_LISTEN=f"127.0.0.1:{port}",
        PROXY_HOSTNAME="gpu1",
    )
    site = Site(compose, port, folder)
    try:
        compose.done("build", "--quiet", timeout=BUILD_TIMEOUT)
        printed = compose.done("run", "--rm", "-T", "proxy", "keys", "create", "laptop")
        assert re.fullmatch(r"oap_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}\n", printed)
        site.key = printed.strip()
        compose.done("--profile", "monitoring", "up", "--detach", "--wait", "proxy", "prometheus")
        compose.done("cp", "proxy:/data/tls.crt", str(site.certificate))
        yield site
    finally:
        compose.done("--profile", "monitoring", "down", "--volumes", "--rmi", "local", "--timeout", "5")
    assert done("docker", "ps", "--all", "--quiet", "--filter", f"name={compose.project}") == ""


def _for_tests(folder: Path) -> Path:
    """An override file: a model that is here already, a Prometheus that need not be waited for."""
    prometheus = folder / "prometheus"
    shutil.copytree(ROOT / "deploy" / "docker" / "prometheus", prometheus)
    file = prometheus / "prometheus.yml"
    file.write_text(file.read_text().replace("15s", "1s"))
    grafana = folder / "run.sh"
    grafana.write_text(RUN)
    grafana.chmod(0o755)
    services = {
        "ollama": {
            "environment": {"OLLAMA_NOPRUNE": "1"},
            "volumes": [f"{MODELS}:/root/.ollama/models:ro"],
            "healthcheck": {"interval": "1s"},
        },
        "proxy": {"healthcheck": {"interval": "1s"}},
        "prometheus": {
            "entrypoint": ["/bin/prometheus"],  # that of the public image, which a stand-in lacks
            "user": "65534:65534",
            "volumes": [f"{prometheus}:/etc/prometheus:ro", {"type": "tmpfs", "target": "/prometheus"}],
            "healthcheck": {"interval": "1s"},
        },
        "grafana": {"image": IMAGES[0], "volumes": [f"{grafana}:/run.sh:ro"]},
    }
    override = folder / "for-tests.yml"
    override.write_text(yaml.safe_dump({"services": services}))
    return override


def test_a_key_gets_a_streamed_answer_of_a_real_model_over_tls(site: Site) -> None:
    with site.client() as client, client.stream("POST", "/api/chat", json=chat(4)) as answer:
        assert answer.status_code == 200
        came = [(time.monotonic(), json.loads(line)) for line in answer.iter_lines()]
    lines = [line for _, line in came]
    assert len(lines) > 2
    assert came[-1][0] - came[0][0] > 0.01, "it came all at once"
    assert lines[-1]["done"]
    assert "".join(line["message"]["content"] for line in lines).strip()


def test_without_a_key_there_is_no_answer(site: Site) -> None:
    with site.client("nobody") as client:
        assert client.post("/api/chat", json=chat(4)).status_code == 401


def test_a_running_proxy_takes_a_new_key(site: Site) -> None:
    key = site.compose.done("exec", "-T", "proxy", "ollama-auth-proxy", "keys", "create", "phone").strip()
    with site.client(key) as client:
        _eventually(lambda: client.get("/api/tags").status_code == 200, 3)


def test_the_certificate_has_the_name_that_the_operator_gave(site: Site) -> None:
    port = int(site.url.rpartition(":")[2])
    trust = ssl.create_default_context(cafile=site.certificate)
    with socket.create_connection(("127.0.0.1", port)) as raw, trust.wrap_socket(raw, server_hostname="gpu1"):
        pass


def test_nothing_but_8443_is_published(site: Site) -> None:
    published: dict[str, str] = {}
    for line in done("docker", "ps", "--quiet", "--filter", f"name={site.compose.project}").split():
        found = json.loads(done("docker", "inspect", line))[0]
        published |= {
            port: found["Name"] for port, where in found["NetworkSettings"]["Ports"].items() if where
        }
    assert list(published) == ["8443/tcp"]


def test_ollama_and_the_metrics_are_out_of_reach_even_beside_them(site: Site) -> None:
    """Not from this machine, which reaches every port of a container, nor from a container in the network."""
    address = site.address()
    for port in (11434, 9464):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), 5)
    listening = "".join(
        site.compose.done("exec", "-T", "proxy", "cat", f"/proc/net/{table}") for table in ("tcp", "tcp6")
    )
    ends = re.findall(r"^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ 0A ", listening, re.M)
    loopback = ("7F", "0" * 24 + "01000000")  # of IPv4 the bytes stand in the machine's order
    outside = {int(port, 16) for end, port in ends if end[-2:] != "7F" and end != loopback[1]}
    assert outside == {8443, 9090}
    assert {11434, 9464} <= {int(port, 16) for _, port in ends}


def test_the_proxy_has_no_rights(site: Site) -> None:
    status = site.compose.done("exec", "-T", "proxy", "cat", "/proc/1/status")
    facts = dict(re.findall(r"^(\w+):\s+(\w+)", status, re.M))
    assert (facts["CapEff"], facts["CapBnd"], facts["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    assert facts["Uid"] != "0"
    assert site.inspect("proxy")["HostConfig"]["ReadonlyRootfs"]


def test_prometheus_scrapes_it_with_our_rules(site: Site) -> None:
    with site.client() as client:
        assert client.get("/api/version").status_code == 200
    asked = 'sum(ollama_proxy_requests_total{job="ollama-auth-proxy", route="/api/version", code="200"})'
    _eventually(lambda: re.search(r"=> [1-9]", site.query(asked)) is not None, 10)
    assert " => 1 @" in site.query('up{job="ollama-auth-proxy"}')
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
    ours = [rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]]
    loaded = [rule for group in _ask_as_grafana(site, "rules")["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in loaded) == sorted(ours)
    _eventually(
        lambda: all(
            rule["health"] == "ok"
            for group in _ask_as_grafana(site, "rules")["groups"]
            for rule in group["rules"]
        ),
        10,
    )


def _ask_as_grafana(site: Site, what: str) -> Any:
    """Prometheus' API at the address that Grafana is given, from the network that Grafana is in."""
    source = yaml.safe_load((ROOT / "deploy/docker/grafana/datasources/prometheus.yml").read_text())
    address = f"{source['datasources'][0]['url']}/api/v1/{what}"
    program = f"from urllib.request import urlopen; print(urlopen({address!r}).read().decode())"
    network = f"{site.compose.project}_default"
    words = ["docker", "run", "--rm", "--network", network, IMAGES[0], "python3", "-c", program]
    return json.loads(done(*words))["data"]


def test_when_ollama_crashes_it_comes_back_without_anybody(site: Site) -> None:
    before = site.inspect("ollama")
    done("kill", "-9", str(before["State"]["Pid"]))
    _eventually(lambda: site.inspect("ollama")["RestartCount"] == before["RestartCount"] + 1, 20)
    with site.client() as client:
        _eventually(lambda: client.get("/api/version").status_code == 200, 20)


def test_a_stop_waits_for_answers_and_then_ends_well(site: Site) -> None:
    ends: list[Any] = []
    begun = threading.Event()

    def ask() -> None:
        with site.client() as client, client.stream("POST", "/api/chat", json=chat(30)) as answer:
            for line in answer.iter_lines():
                begun.set()
                ends.append(json.loads(line))

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(60)
    site.compose.done("stop", "proxy")
    asking.join(10)
    assert ends[-1]["done"]
    log = site.compose.done("logs", "--no-log-prefix", "proxy")
    assert (
        "draining" in log[: log.rindex('"route":"/api/chat"')]
    )  # it was asked to stop before the answer ended
    assert site.inspect("proxy")["State"]["ExitCode"] == 0
    site.compose.done("up", "--detach", "--wait", "proxy")


def test_down_and_up_lose_neither_keys_nor_certificate(site: Site) -> None:
    site.compose.done("--profile", "monitoring", "down")
    site.compose.done("up", "--detach", "--wait", "proxy")
    with site.client() as client:
        assert client.get("/api/tags").status_code == 200


def _eventually(holds: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """A project of which nothing is started."""
    need_engine()
    return Compose(f"plan-{uuid4().hex[:8]}", _for_tests(tmp_path_factory.mktemp("plan")))


def test_grafana_gets_a_password_its_source_and_its_dashboard(plan: Compose) -> None:
    """Up to its own program, in whose place another tells what it was given."""
    need_images(IMAGES[0])
    start = ["run", "--rm", "-T", "--no-deps", "grafana"]
    try:
        refused = plan.run(*start, GRAFANA_ADMIN_PASSWORD="")
        given = json.loads(plan.done(*start, GRAFANA_ADMIN_PASSWORD="correct horse"))
    finally:
        plan.run("--profile", "monitoring", "down", "--volumes")
    assert refused.returncode == 1
    assert "GRAFANA_ADMIN_PASSWORD is not set" in refused.stderr
    assert given["password"] == "correct horse"
    (source,) = yaml.safe_load(given["sources"]["prometheus.yml"])["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load(given["providers"]["ollama-auth-proxy.yml"])["providers"]
    assert provider["options"]["path"] == DASHBOARDS
    dashboard = json.loads(given["dashboards"]["dashboard.json"])
    assert {"type": "datasource", "query": "prometheus"}.items() <= dashboard["templating"]["list"][0].items()


@pytest.mark.parametrize("kind", ["nvidia", "amd"])
def test_the_file_for_a_gpu_adds_it_and_takes_nothing_away(kind: str) -> None:
    need_engine()
    plain = json.loads(Compose("plan").done("config", "--format", "json"))["services"]
    added = json.loads(
        Compose("plan", ROOT / "deploy" / "docker" / f"gpu-{kind}.yml").done("config", "--format", "json")
    )["services"]
    ollama = added["ollama"]
    if kind == "nvidia":
        (devices,) = ollama.pop("deploy")["resources"]["reservations"]["devices"]
        assert (devices["driver"], devices["capabilities"]) == ("nvidia", ["gpu"])
        assert devices["count"] == -1  # all of them
    else:
        assert [device["source"] for device in ollama.pop("devices")] == ["/dev/kfd", "/dev/dri"]
        assert ollama.pop("image") == plain["ollama"].pop("image") + "-rocm"
    assert added == plain


def test_the_namespace_is_held_by_the_image_that_the_proxy_is_built_on() -> None:
    assert f"ARG PYTHON_IMAGE={IMAGES[0]}\n" in (ROOT / "Dockerfile").read_text()


def test_there_is_more_time_to_stop_than_answers_get() -> None:
    config = tomllib.loads((ROOT / "deploy" / "docker" / "config" / "config.toml").read_text())
    minutes = int(config["listen"]["drain_timeout"].removesuffix("m"))
    assert int(FILE["services"]["proxy"]["stop_grace_period"].removesuffix("s")) > minutes * 60
