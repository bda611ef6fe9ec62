"""The manifests, as kubectl builds them: held to the API's schemas, and to what the proxy itself needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from proxy.config.values import parse_duration, parse_size

from .. import program
from ..clients.programs import cannot_run
from ..wire.conftest import until
from ..wire.site import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "kubernetes"
EXAMPLE = FOLDER / "overlays" / "example"
RULES = DEPLOY / "prometheus" / "rules.yml"
VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: the oldest that has all that is used here, and the newest."""
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
OPERATORS_KINDS = {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"}
Resource = dict[str, Any]


@cache
def built(folder: Path) -> list[Resource]:
    """The resources of a kustomization, built by kubectl or kustomize."""
    if shutil.which("kubectl"):
        words = ["kubectl", "kustomize"]
    elif shutil.which("kustomize"):
        words = ["kustomize", "build"]
    else:
        cannot_run("there is no kubectl and no kustomize; install one of them")
    done = subprocess.run([*words, folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(params=["base", "overlays/example"])
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    return built(FOLDER / request.param)


def one(resources: list[Resource], kind: str, name: str = "") -> Resource:
    (found,) = (item for item in resources if item["kind"] == kind and name in ("", item["metadata"]["name"]))
    return found


def pod(resources: list[Resource]) -> Resource:
    template: Resource = one(resources, "StatefulSet")["spec"]["template"]
    return template


def proxy(resources: list[Resource]) -> Resource:
    (container,) = pod(resources)["spec"]["containers"]
    return dict(container)


def ollama(resources: list[Resource]) -> Resource:
    (container,) = pod(resources)["spec"]["initContainers"]
    return dict(container)


def configuration(resources: list[Resource]) -> str:
    text: str = one(resources, "ConfigMap", "ollama-auth-proxy")["data"]["config.toml"]
    return text


# -- the API takes them


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_resource(version: str, resources: list[Resource]) -> None:
    own = [resource for resource in resources if resource["kind"] not in OPERATORS_KINDS]
    assert len(own) >= 6
    for resource in own:
        kubernetes_validate.validate(deepcopy(resource), version, strict=True)


def test_a_mistake_in_a_resource_would_be_seen() -> None:
    wrong = deepcopy(built(FOLDER / "base"))
    proxy(wrong)["readinessProbe"]["httpGett"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one(wrong, "StatefulSet"), VERSIONS[0], strict=True)


@cache
def operator_schema(plural: str) -> dict[str, Any]:
    """What the Prometheus Operator takes, from its own definition; unknown members are faults."""
    if shutil.which("go") is None:
        cannot_run("there is no go, which gets the Prometheus Operator's definitions")
    words = ["go", "mod", "download", "-json", OPERATOR]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        cannot_run(f"go mod download {OPERATOR} fails: {done.stdout or done.stderr}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    definition = yaml.safe_load((folder / f"monitoring.coreos.com_{plural}.yaml").read_text())
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    """Take unknown members for faults, as kubectl does, and leave out patterns that are Go's."""
    if isinstance(schema, list):
        for member in schema:
            _close(member)
    elif isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if "(?i)" in str(schema.get("pattern")):
            del schema["pattern"]
        for member in schema.values():
            _close(member)


@pytest.mark.parametrize("kind", OPERATORS_KINDS)
def test_the_prometheus_operator_takes_its_resources(kind: str) -> None:
    schema = operator_schema(OPERATORS_KINDS[kind])
    resource = one(built(EXAMPLE), kind)
    jsonschema.validate(resource, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**resource, "spec": {**resource["spec"], "podMetricsEndpoint": []}}, schema)


def test_the_cluster_has_the_same_alerts() -> None:
    file = FOLDER / "components" / "prometheus-operator" / "prometheusrule.yaml"
    lines = RULES.read_text().splitlines(keepends=True)
    copied = "".join(f"  {line}" if line.strip() else line for line in lines)
    assert file.read_text().partition("\nspec:\n")[2] == copied, "write it anew, as its first lines say"


# -- nobody gets past the proxy


def test_ollama_listens_on_the_loopback_of_the_pod_alone(resources: list[Resource]) -> None:
    container = ollama(resources)
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["OLLAMA_HOST"] == "127.0.0.1:11434"
    assert environment["OLLAMA_NO_CLOUD"] == "1"
    assert "ports" not in container
    assert tomllib.loads(configuration(resources))["upstream"]["url"] == "http://127.0.0.1:11434"
    assert "11434" not in json.dumps(
        [item for item in resources if item["kind"] in ("Service", "NetworkPolicy")]
    )


def test_only_the_port_that_asks_for_keys_is_offered(resources: list[Resource]) -> None:
    ports = {port["name"]: port["containerPort"] for port in proxy(resources)["ports"]}
    assert ports == {"https": 8443, "ops": 9464}
    (service,) = (item for item in resources if item["kind"] == "Service")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["https"]
    config = tomllib.loads(configuration(resources))
    assert config["listen"]["address"].endswith(":8443")
    assert config["ops"]["address"].endswith(":9464")
    assert config["tls"]["mode"] == "files"


def test_the_network_policy_lets_in_what_is_meant_and_nothing_out(resources: list[Resource]) -> None:
    spec = one(resources, "NetworkPolicy", "ollama")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert spec["egress"] == []
    everybody, monitoring = spec["ingress"]
    assert everybody == {"ports": [{"port": "https"}]}
    assert monitoring["ports"] == [{"port": "ops"}]
    (peer,) = monitoring["from"]
    assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def test_every_selector_finds_the_pod_and_nothing_else(resources: list[Resource]) -> None:
    labels = pod(resources)["metadata"]["labels"]
    kinds = {
        "Service": lambda spec: spec["selector"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
        "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
    }
    seen = {item["kind"] for item in resources if item["kind"] in kinds}
    assert seen >= kinds.keys() - {"PodMonitor"}
    for item in resources:
        if item["kind"] in kinds:
            selector = kinds[item["kind"]](item["spec"])
            assert selector, item["kind"]
            assert selector.items() <= labels.items(), item["kind"]


def test_pulling_models_does_not_open_private_networks() -> None:
    blocks = one(built(EXAMPLE), "NetworkPolicy", "ollama-outward")["spec"]["egress"][1]["to"]
    v4, v6 = (block["ipBlock"] for block in blocks)
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(v4["except"])
    assert {"fc00::/7", "fe80::/10"} <= set(v6["except"])


def test_prometheus_scrapes_with_the_token_and_under_the_name_that_rules_expect() -> None:
    resources = built(EXAMPLE)
    monitor = one(resources, "PodMonitor")["spec"]
    assert pod(resources)["metadata"]["labels"][monitor["jobLabel"]] == "ollama-auth-proxy"
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in proxy(resources)["ports"]}
    wanted = endpoint["authorization"]["credentials"]
    token = Path(tomllib.loads(configuration(resources))["ops"]["token_file"])
    (mount,) = (item for item in proxy(resources)["volumeMounts"] if item["mountPath"] == str(token.parent))
    (volume,) = (item for item in pod(resources)["spec"]["volumes"] if item["name"] == mount["name"])
    assert wanted == {"name": volume["secret"]["secretName"], "key": token.name}


# -- the pod is confined


def test_the_pod_keeps_to_the_restricted_pod_security_standard(resources: list[Resource]) -> None:
    spec = pod(resources)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
    assert all({"configMap", "secret", "emptyDir"} & volume.keys() for volume in spec["volumes"])
    users = set()
    for container in (proxy(resources), ollama(resources)):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        users.add(context["runAsUser"])
    assert len(users) == 2
    assert 0 not in users


def test_the_pod_has_no_credential_of_the_cluster(resources: list[Resource]) -> None:
    assert pod(resources)["spec"]["automountServiceAccountToken"] is False
    account = one(resources, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod(resources)["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_secrets_are_files_that_ollama_does_not_have(resources: list[Resource]) -> None:
    assert not [item for item in resources if item["kind"] == "Secret"]
    assert "valueFrom" not in json.dumps(pod(resources))
    assert {mount["name"] for mount in ollama(resources)["volumeMounts"]} == {"models", "ollama-tmp"}
    assert "subPath" not in json.dumps(pod(resources))  # would not follow a change


def test_every_container_says_what_it_takes(resources: list[Resource]) -> None:
    for container in (proxy(resources), ollama(resources)):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_bodies_that_are_judged_fit_into_the_memory_limit(resources: list[Resource]) -> None:
    """By what config/config.toml says of policy.max_guarded_body, beside 4096 connections of 40 KiB."""
    body = parse_size(tomllib.loads(configuration(resources))["policy"]["max_guarded_body"])
    needed = 4 * body + 2 * (256 * 1024**2 + 10 * body) + 100 * 1024**2 + 4096 * 40 * 1024
    assert parse_size(proxy(resources)["resources"]["limits"]["memory"] + "B") >= needed


def test_the_image_is_made_for_this_pod(resources: list[Resource]) -> None:
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text()
    container = proxy(resources)
    context = container["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    assert f'\nENTRYPOINT ["{container["command"][0]}"]\n' in dockerfile
    assert "OLLAMA_PROXY_CONFIG=/etc/ollama-auth-proxy/config.toml" in dockerfile
    assert pod(resources)["spec"]["securityContext"]["fsGroup"] == context["runAsGroup"]


# -- starting, ending, changing


def test_ollama_starts_first_and_ends_last(resources: list[Resource]) -> None:
    """A native sidecar: up before the proxy begins, and told to end when the proxy has drained."""
    assert ollama(resources)["restartPolicy"] == "Always"
    assert ollama(resources)["startupProbe"]["exec"]["command"] == ["ollama", "ps"]


def test_answers_may_end_before_the_pod_is_killed(resources: list[Resource]) -> None:
    drain = parse_duration(tomllib.loads(configuration(resources))["listen"]["drain_timeout"])
    pause = proxy(resources)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 5
    assert pod(resources)["spec"]["terminationGracePeriodSeconds"] >= pause + drain + 10


def test_probes_ask_for_what_a_restart_mends_and_for_what_it_does_not(resources: list[Resource]) -> None:
    container = proxy(resources)
    paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in paths.values()} == {"ops"}
    assert {kind: probe["path"] for kind, probe in paths.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }


def test_there_is_one_replica_and_it_can_be_moved(resources: list[Resource]) -> None:
    spec = one(resources, "StatefulSet")["spec"]
    assert spec["replicas"] == 1
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    assert claims == {"models", "data"}
    assert one(resources, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_what_the_proxy_reads_and_writes_is_mounted(resources: list[Resource]) -> None:
    config = tomllib.loads(configuration(resources))
    mounts = {mount["mountPath"]: mount for mount in proxy(resources)["volumeMounts"]}
    names = {volume["name"] for volume in pod(resources)["spec"]["volumes"]}
    names |= {c["metadata"]["name"] for c in one(resources, "StatefulSet")["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in mounts.values()} <= names
    for file in (config["tls"]["certificate"], config["tls"]["private_key"], config["ops"]["token_file"]):
        assert mounts[str(Path(file).parent)]["readOnly"] is True
    store = Path(config["store"]["url"].removeprefix("sqlite:///"))
    assert "readOnly" not in mounts[str(store.parent)]
    (path,) = (item["value"] for item in proxy(resources)["env"] if item["name"] == "OLLAMA_PROXY_CONFIG")
    assert mounts[str(Path(path).parent)]["name"] == "config"
    # Under its own name, so that a change reaches the pod that runs.
    (volume,) = (item for item in pod(resources)["spec"]["volumes"] if item["name"] == "config")
    assert volume["configMap"]["name"] == "ollama-auth-proxy"


class Pod:
    """The proxy with the built configuration as its kubelet mounts it, and this machine's addresses."""

    def __init__(self, directory: Path, text: str) -> None:
        self.directory = directory
        self.mount = directory / "etc"
        self.mount.mkdir()
        self.versions = 0
        self.write(text)
        (directory / "token").write_text("t" * 32)
        self.ops_port = free_port()
        self.environ = {
            "PATH": os.environ["PATH"],
            "OLLAMA_PROXY_CONFIG": str(self.mount / "config.toml"),
            "OLLAMA_PROXY_LISTEN__ADDRESS": f"127.0.0.1:{free_port()}",
            "OLLAMA_PROXY_OPS__ADDRESS": f"127.0.0.1:{self.ops_port}",
            "OLLAMA_PROXY_OPS__TOKEN_FILE": str(directory / "token"),
            "OLLAMA_PROXY_STORE__URL": f"sqlite:///{directory}/data/keys.db",
            "OLLAMA_PROXY_TLS__MODE": "self-signed",
            "OLLAMA_PROXY_TLS__CERTIFICATE": str(directory / "tls.crt"),
            "OLLAMA_PROXY_TLS__PRIVATE_KEY": str(directory / "tls.key"),
        }

    def write(self, text: str) -> None:
        """As the kubelet does: a new folder, and one symbolic link that is exchanged at once."""
        self.versions += 1
        version = self.mount / f"..version_{self.versions}"
        version.mkdir()
        (version / "config.toml").write_text(text)
        (self.mount / "..new").symlink_to(version.name)
        os.replace(self.mount / "..new", self.mount / "..data")
        file = self.mount / "config.toml"
        if not file.is_symlink():
            file.symlink_to("..data/config.toml")

    def metric(self, name: str) -> float:
        request = urllib.request.Request(f"http://127.0.0.1:{self.ops_port}/metrics")
        request.add_header("Authorization", f"Bearer {'t' * 32}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])

    def wait_for(self, name: str, holds: Callable[[float], bool]) -> None:
        """Wait until a metric is as it should be: files are followed within ten seconds."""
        deadline = time.monotonic() + 12
        while not holds(value := self.metric(name)):
            assert time.monotonic() < deadline, f"{name} stays {value}"
            time.sleep(0.2)


@pytest.fixture
def mounted(tmp_path: Path, resources: list[Resource]) -> Pod:
    return Pod(tmp_path, configuration(resources))


def test_the_proxy_takes_the_configuration(mounted: Pod) -> None:
    checked = program.run("check-config", environ=mounted.environ)
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Pod]:
    mounted = Pod(tmp_path, configuration(built(FOLDER / "base")))
    log = tmp_path / "log"
    with log.open("w") as stream:
        words = [sys.executable, "-m", "proxy", "serve"]
        process = subprocess.Popen(words, env=mounted.environ, stdout=stream, stderr=stream)

    def serves() -> bool:
        assert process.poll() is None, log.read_text()
        return "serving https" in log.read_text()

    try:
        until(serves, 20)
        yield mounted
    finally:
        process.terminate()
        process.wait(20)


def test_a_changed_config_map_is_taken_without_a_restart(running: Pod) -> None:
    text = configuration(built(FOLDER / "base"))
    before = time.time()
    running.write(f'{text}\n[log]\nlevel = "warning"\n')
    running.wait_for("ollama_proxy_config_reload_timestamp_seconds", lambda value: value >= before)
    assert running.metric("ollama_proxy_config_reload_success") == 1
    running.write(f"{text}\n[nonsense]\n")
    running.wait_for("ollama_proxy_config_reload_success", lambda value: value == 0)
