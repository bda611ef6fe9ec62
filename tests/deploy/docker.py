"""A real Docker engine, the base images of the project's own, and commands as an operator types them.

On a machine without a registry, `docker-engine` beside the checkout starts the engine and makes stand-ins for
the base images, under the names that Dockerfile and docker-compose.yml have for them. What cannot be had is
skipped with its reason, but fails with CI=true.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ..clients.programs import cannot_run

ROOT = Path(__file__).parents[2]
TOOLS = ROOT.parent / "shared" / "tools"
MODELS = Path(os.environ.get("REAL_OLLAMA_HOME", Path.home() / ".cache" / "real-ollama")) / "models"
MODEL = "smollm2:135m"
TOOL_TIMEOUT = 900.0
BUILD_TIMEOUT = 300.0
TIMEOUT = 120.0


def run(*words: str, timeout: float = TIMEOUT, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a command in the checkout prints and how it ends."""
    return subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def done(*words: str, timeout: float = TIMEOUT, **environment: str) -> str:
    """What a command that must succeed prints."""
    found = run(*words, timeout=timeout, **environment)
    assert found.returncode == 0, f"{' '.join(words)}: {found.returncode}\n{found.stdout}\n{found.stderr}"
    return found.stdout


@cache
def _fault_of_engine() -> str:
    """What is wrong with the engine, after it was begun if need be."""
    questions = ("docker", "info"), ("docker", "compose", "version")
    if shutil.which("docker") and all(run(*words).returncode == 0 for words in questions):
        return ""
    tool = TOOLS / "docker-engine"
    if not tool.exists():
        return "no Docker engine with compose answers: 'docker info', 'docker compose version'"
    found = run(str(tool), "start", timeout=TOOL_TIMEOUT)
    return f"docker-engine start fails: {found.stderr[-1000:]}" if found.returncode else ""


@cache
def _fault_of_image(tag: str) -> str:
    """Why there is no image of this name, after it was made or pulled if need be."""
    if run("docker", "image", "inspect", tag).returncode == 0:
        return ""
    tool = str(TOOLS / "docker-engine")
    name = tag.partition(":")[0]
    made = {
        "python": [tool, "python", tag],
        "ollama/ollama": [tool, "ollama", tag],
        "prom/prometheus": [tool, "debian", tag, "prometheus"],
    }
    words = made[name] if Path(tool).exists() else ["docker", "pull", "--quiet", tag]
    found = run(*words, timeout=TOOL_TIMEOUT)
    return f"{' '.join(words)} fails: {found.stderr[-1000:]}" if found.returncode else ""


def need_engine() -> None:
    if fault := _fault_of_engine():
        cannot_run(fault)


def need_images(*tags: str) -> None:
    need_engine()
    for tag in tags:
        if fault := _fault_of_image(tag):
            cannot_run(fault)


@cache
def _fault_of_model() -> str:
    """Why there are no weights of a real model in MODELS, after they were made if need be."""
    name, _, tag = MODEL.partition(":")
    manifest = MODELS / "manifests" / "registry.ollama.ai" / "library" / name / tag
    tool = TOOLS / "real-ollama"
    if not manifest.exists() and tool.exists():
        from ..wire.site import free_port

        port = str(free_port())
        run(str(tool), "start", port, timeout=TOOL_TIMEOUT)
        run(str(tool), "stop", port)
    return "" if manifest.exists() else f"there is no model {MODEL} in {MODELS}"


def need_model() -> None:
    if fault := _fault_of_model():
        cannot_run(fault)


class Compose:
    """`docker compose` in the checkout, with a project name, more files and variables of its own."""

    def __init__(self, project: str, *files: Path, **environment: str) -> None:
        self.project = project
        self.environment: Mapping[str, str] = {
            "COMPOSE_PROJECT_NAME": project,
            "COMPOSE_FILE": os.pathsep.join(["docker-compose.yml", *map(str, files)]),
            "COMPOSE_PROGRESS": "plain",
            **environment,
        }

    def run(
        self, *words: str, timeout: float = TIMEOUT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return run("docker", "compose", *words, timeout=timeout, **(dict(self.environment) | environment))

    def done(self, *words: str, timeout: float = TIMEOUT, **environment: str) -> str:
        """What it prints on stdout; it must succeed."""
        return done("docker", "compose", *words, timeout=timeout, **(dict(self.environment) | environment))

    def container(self, service: str) -> str:
        """The id of the service's container, a stopped one too."""
        return self.done("ps", "--all", "--quiet", service).strip()
