"""The image is small, holds what the lock says and nothing else, and needs no rights."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from .docker import BUILD_TIMEOUT, ROOT, Compose, done, need_images, run

pytestmark = pytest.mark.xdist_group("docker")

BASE = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M)[0]
MOST_BYTES = 125_000_000
"""What the image may add to its base: 105 MB when this was written."""

ASK_PYTHON = """
import importlib.metadata, importlib.util, json, shutil
print(json.dumps({
    "versions": {d.name.lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()},
    "modules": [name for name in ("pip", "ensurepip", "tests") if importlib.util.find_spec(name)],
    "programs": [name for name in ("pip", "pip3", "gcc", "cc", "c++", "make", "git") if shutil.which(name)],
}))
"""


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The name of an image that was made from this checkout."""
    need_images(BASE)
    compose = Compose(f"image-{uuid4().hex[:8]}")
    compose.done("build", "--quiet", "proxy", timeout=BUILD_TIMEOUT)
    yield f"{compose.project}-proxy"
    run("docker", "image", "rm", f"{compose.project}-proxy")


@pytest.fixture(scope="module")
def about(image: str) -> Any:
    return json.loads(done("docker", "image", "inspect", image))[0]


@pytest.fixture(scope="module")
def content(image: str) -> Any:
    return json.loads(done("docker", "run", "--rm", "--entrypoint", "python3", image, "-c", ASK_PYTHON))


def test_it_is_small(about: Any) -> None:
    base = json.loads(done("docker", "image", "inspect", BASE))[0]
    assert 0 < about["Size"] - base["Size"] < MOST_BYTES


def test_its_labels_say_what_it_is(image: str, about: Any) -> None:
    labels = about["Config"]["Labels"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "org.opencontainers.image."
    assert labels[prefix + "title"] == project["name"]
    assert labels[prefix + "description"] == project["description"]
    assert labels[prefix + "licenses"] == project["license"]
    assert {prefix + "source", prefix + "revision"} <= set(labels)
    version = done("docker", "run", "--rm", "--read-only", "--network", "none", image, "version").strip()
    assert labels[prefix + "version"] == version == project["version"]


def test_it_holds_the_versions_of_the_lock_and_no_tools(content: Any) -> None:
    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.M))
    versions = content["versions"]
    del versions["ollama-auth-proxy"]
    assert len(versions) > 20
    assert {name: locked.get(name) for name in versions} == versions
    assert not {"pytest", "hypothesis", "mypy", "ruff", "uv", "hatchling", "openai"} & set(versions)
    assert content["modules"] == []
    assert content["programs"] == []


def test_nothing_is_compiled_when_it_starts(image: str) -> None:
    """Whoever runs it cannot write bytecode, and every health check starts Python anew."""
    words = ["docker", "run", "--rm", "--read-only", "--entrypoint", "python3", image]
    found = run(*words, "-v", "-c", "import proxy.app, proxy.cli").stderr
    assert "/proxy/__pycache__/app.cpython-" in found
    assert re.findall(r"^# code object from '(/.*\.py)'", found, re.M) == []


def test_whoever_runs_it_can_write_nothing_but_data(image: str, about: Any) -> None:
    user, _, group = about["Config"]["User"].partition(":")
    assert int(user) > 0  # a number, or Kubernetes cannot tell that it is not root
    assert int(group) > 0
    find = "find / -xdev ( -type f -o -type d ) -writable -not -path /proc* -not -path /dev*"
    words = ["docker", "run", "--rm", "--entrypoint", find.split()[0], image, *find.split()[1:]]
    assert set(run(*words).stdout.split()) <= {"/data", "/tmp", "/var/tmp", "/run/lock"}


def test_it_serves_without_rights_and_tells_that_ollama_is_missing(image: str) -> None:
    options = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    health = ["--health-interval", "500ms", "--health-retries", "1", "--health-start-period", "1ms"]
    container = done("docker", "run", "--detach", *options, *health, image).strip()
    try:
        deadline = time.monotonic() + 30
        while "upstream" not in _last_check(state := _state(container)):
            assert state["Running"], done("docker", "logs", container)
            assert time.monotonic() < deadline, state
            time.sleep(0.1)
        assert state["Health"]["Status"] == "unhealthy"
        logs = run("docker", "logs", container)
        assert "serving https on 0.0.0.0 port 8443" in logs.stdout + logs.stderr
        done("docker", "stop", container)
        assert _state(container)["ExitCode"] == 0
    finally:
        run("docker", "rm", "--force", "--volumes", container)


def _state(container: str) -> Any:
    return json.loads(done("docker", "inspect", container))[0]["State"]


def _last_check(state: Any) -> str:
    """What the last health check printed, if there was one yet."""
    checks = state["Health"]["Log"]
    return str(checks[-1]["Output"]) if checks else ""
