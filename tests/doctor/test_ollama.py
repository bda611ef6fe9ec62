"""What is found of Ollama: whether it answers, who gets to it, what it writes, how fast it is."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.values import Address
from proxy.doctor import environment, exposure, upstream
from proxy.doctor.environment import Environment
from proxy.doctor.findings import Finding, Level
from proxy.doctor.first_token import Token, candidates, judge
from proxy.doctor.upstream import Model, Seen
from proxy.tls.machine import addresses

from ..clients.programs import cannot_run
from ..real.conftest import DEFAULT_URL
from ..wire.site import free_port
from .deployment import TOKEN, Deployment, Ollama, ollama


@pytest.fixture
def server() -> Iterator[Ollama]:
    with ollama() as server:
        yield server


@pytest.fixture
def deployment(server: Ollama, tmp_path: Path) -> Deployment:
    return Deployment(tmp_path, server.url, tls={"mode": "off"})


def look(server: Ollama, *, cloud: bool = False) -> dict[str, Finding]:
    """What is found of its answers alone, by code."""

    async def ask() -> Seen:
        async with upstream.client(server.url) as client:
            return await upstream.ask(client)

    return {finding.code: finding for finding in upstream.judge(asyncio.run(ask()), server.url, cloud=cloud)}


# Whether it answers


def test_an_ollama_that_is_well_is_well(deployment: Deployment) -> None:
    found = deployment.walk()
    well = ("ollama_answers", "models", "cloud_closed", "ollama_on_loopback", "first_token")
    assert [found[code].level for code in well] == [Level.OK] * 5


def test_an_ollama_that_is_not_there_is_found(deployment: Deployment, server: Ollama) -> None:
    server.stop()
    found = deployment.walk()
    assert found["ollama_unreachable"].level is Level.ERROR
    assert server.url in found["ollama_unreachable"].seen
    assert found["no_token_asked"].level is Level.NOTE


@pytest.mark.parametrize("answer", [None, b"<html>", {"version": 1}, [1], b"[" * 100_000])
def test_another_server_is_not_taken_for_ollama(server: Ollama, answer: object) -> None:
    server.answers["/api/version"] = answer
    assert "not Ollama" in look(server)["ollama_unreachable"].seen


def test_an_ollama_that_says_nothing_is_found_in_time(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.doctor.upstream.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deployment.tables["upstream"]["url"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "no answer came" in deployment.walk()["ollama_unreachable"].seen


@pytest.mark.parametrize(
    ("version", "code", "lacking"),
    [
        ("0.20.0", "ollama_answers", ""),
        ("0.33.0-rc2", "ollama_answers", ""),
        ("0.19.9", "ollama_old", "no /v1/audio/transcriptions"),
        ("0.13.2", "ollama_old", "no /v1/responses, /v1/messages, /api/status"),
        ("0.0.0", "ollama_version_unknown", "'0.0.0'"),
        ("tip", "ollama_version_unknown", "'tip'"),
    ],
)
def test_what_an_old_version_lacks_is_told(server: Ollama, version: str, code: str, lacking: str) -> None:
    server.answers["/api/version"] = {"version": version}
    found = look(server)[code]
    assert (found.level is Level.OK) == (code == "ollama_answers")
    assert lacking in found.seen


@pytest.mark.parametrize(
    ("answer", "code"),
    [({"models": []}, "no_model"), (None, "models_unknown"), ({"models": [{"name": 1}, 2]}, "no_model")],
)
def test_an_ollama_without_models_is_found(
    deployment: Deployment, server: Ollama, answer: object, code: str
) -> None:
    server.answers["/api/tags"] = answer
    found = deployment.walk()
    assert found[code].level is Level.WARNING
    assert found["no_token_asked"].level is Level.NOTE


# The cloud


@pytest.mark.parametrize(
    ("policy", "disabled", "code"),
    [
        (True, False, "cloud_open"),
        (True, None, "cloud_open"),
        (True, True, "cloud_closed_by_ollama"),
        (False, False, "cloud_open_in_ollama"),
        (False, None, "cloud_unknown"),
    ],
)
def test_an_open_cloud_is_a_note(server: Ollama, policy: bool, disabled: bool | None, code: str) -> None:
    server.answers["/api/status"] = None if disabled is None else {"cloud": {"disabled": disabled}}
    found = look(server, cloud=policy)
    assert found[code].level is Level.NOTE
    assert "cloud_closed" not in found


def test_the_policy_of_the_configuration_is_the_one_that_counts(deployment: Deployment) -> None:
    deployment.tables["policy"] = {"cloud": True}
    assert "cloud_closed_by_ollama" in deployment.walk()


# Who gets to it


def test_an_ollama_that_everybody_reaches_is_found(tmp_path: Path) -> None:
    others = [str(address) for address in addresses() if not address.is_loopback and address.version == 4]
    if not others:
        cannot_run("this machine has no address but loopback")
    with ollama("0.0.0.0") as wide:
        found = Deployment(tmp_path, wide.url, tls={"mode": "off"}).walk()
    assert found["ollama_bound_widely"].level is Level.WARNING
    assert "0.0.0.0" in found["ollama_bound_widely"].seen
    beside = found["ollama_reachable_beside_us"]
    assert beside.level is Level.ERROR
    assert all(f"{address}:{wide.port}" in beside.seen for address in others)
    assert f"OLLAMA_HOST=127.0.0.1:{wide.port}" in beside.mend
    assert "ollama_on_loopback" not in found


def test_an_ollama_that_is_bound_to_one_more_address_is_found(deployment: Deployment, server: Ollama) -> None:
    """As Docker does it for a published port."""
    other = next((address for address in addresses() if not address.is_loopback), None)
    if other is None or other.version == 6:
        cannot_run("this machine has no address but loopback")
    with ollama(str(other), server.port):
        found = deployment.walk()
    assert str(other) in found["ollama_bound_widely"].seen
    assert f"{other}:{server.port}" in found["ollama_reachable_beside_us"].seen


def test_the_proxy_itself_on_the_same_port_is_no_way_around_it(
    deployment: Deployment, server: Ollama
) -> None:
    other = next((address for address in addresses() if not address.is_loopback), None)
    if other is None or other.version == 6:
        cannot_run("this machine has no address but loopback")
    deployment.tables["listen"]["address"] = f"{other}:{server.port}"
    with socket.create_server((str(other), server.port)):
        assert not exposure.bound_widely(server.port, Address(str(other), server.port))
        assert exposure.bound_widely(server.port, Address("127.0.0.1", 8443)) == [str(other)]


def test_of_an_ollama_elsewhere_it_is_said_that_nothing_can_be_told() -> None:
    (found,) = exposure.judge(exposure.Seen(here=False), 11434)
    assert (found.code, found.level) == ("exposure_unknown", Level.NOTE)


def test_a_machine_that_knows_no_other_address_is_not_called_well() -> None:
    (found,) = exposure.judge(exposure.Seen(here=True), 11434)
    assert (found.code, found.level) == ("exposure_unknown", Level.NOTE)


# What it writes


SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"version": "0.24.0"}')
http.server.HTTPServer(("127.0.0.1", int(open("port").read())), Handler).serve_forever()
"""


@contextmanager
def ollama_serve(folder: Path, environ: dict[str, str]) -> Iterator[str]:
    """A process that is called `ollama serve`, has this environment, and answers as one; its URL."""
    port = free_port()
    (folder / "serve").write_text(SERVE)
    (folder / "port").write_text(str(port))
    (folder / "ollama").symlink_to(os.path.realpath(sys.executable))
    process = subprocess.Popen(
        [folder / "ollama", "serve"], cwd=folder, env=environ, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "it does not start"
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("environ", "codes"),
    [
        ({}, {"ollama_log": Level.OK}),
        ({"OLLAMA_DEBUG_LOG_REQUESTS": "1"}, {"ollama_logs_bodies": Level.WARNING}),
        (
            {"OLLAMA_DEBUG": "2", "OLLAMA_DEBUG_LOG_REQUESTS": "yes"},
            {"ollama_logs_prompts": Level.WARNING, "ollama_logs_bodies": Level.WARNING},
        ),
        ({"OLLAMA_DEBUG": "true"}, {"ollama_debug": Level.NOTE}),
    ],
)
def test_an_ollama_that_writes_prompts_is_found(
    tmp_path: Path, environ: dict[str, str], codes: dict[str, Level]
) -> None:
    secret = {"OLLAMA_API_KEY": "canary-5d1f"}
    with ollama_serve(tmp_path, environ | secret) as url:
        found = Deployment(tmp_path, url, tls={"mode": "off"}).walk()
    logs = {"ollama_log", "ollama_logs_bodies", "ollama_logs_prompts", "ollama_debug", "ollama_log_unknown"}
    assert {code: found[code].level for code in logs & found.keys()} == codes
    assert "canary" not in repr(found)


def test_an_environment_that_cannot_be_read_is_not_called_well() -> None:
    (found,) = environment.judge(None)
    assert (found.code, found.level) == ("ollama_log_unknown", Level.NOTE)


@pytest.mark.parametrize(
    ("variables", "seen"),
    [
        (b"", Environment(False, 0)),
        (b"OLLAMA_DEBUG=\0", Environment(False, 0)),
        (b"OLLAMA_DEBUG=0\0OLLAMA_DEBUG_LOG_REQUESTS=false\0", Environment(False, 0)),
        (b"OLLAMA_DEBUG=1\0OLLAMA_DEBUG_LOG_REQUESTS='true'\0", Environment(True, 1)),
        (b"OLLAMA_DEBUG= 2 \0OLLAMA_DEBUG_LOG_REQUESTS=maybe\0", Environment(True, 2)),
        (b"OLLAMA_DEBUG=maybe\0X_OLLAMA_DEBUG_LOG_REQUESTS=1\0", Environment(False, 0)),
        (b"OLLAMA_DEBUG=-1\0", Environment(False, -1)),
    ],
)
def test_variables_mean_what_they_mean_to_ollama(variables: bytes, seen: Environment) -> None:
    assert environment.parse(variables) == seen


@given(st.binary())
def test_no_environment_breaks_the_walk(content: bytes) -> None:
    environment.parse(content)


# How fast it is


def test_the_model_that_is_loaded_is_asked_as_it_is_loaded(deployment: Deployment, server: Ollama) -> None:
    server.answers["/api/tags"] = {"models": [{"name": "small", "size": 1}, {"name": "big", "size": 9}]}
    server.answers["/api/ps"] = {"models": [{"name": "big", "size": 9, "context_length": 8192}]}
    assert "of big" in deployment.walk()["first_token"].seen
    (question,) = [body for path, body in server.asked if path == "/api/generate"]
    assert question == {"model": "big", "prompt": "Hi", "options": {"num_predict": 1, "num_ctx": 8192}}


def test_models_of_the_cloud_and_for_embeddings_are_not_asked(deployment: Deployment, server: Ollama) -> None:
    remote = {"name": "remote", "size": 1, "remote_host": "https://ollama.com"}
    server.answers["/api/tags"] = {
        "models": [remote, {"name": "x:cloud", "size": 1}, {"name": "bert", "size": 2}]
    }
    server.answers["/api/show"] = {"capabilities": ["embedding"]}
    assert deployment.walk()["no_token_asked"].level is Level.NOTE
    assert [body for path, body in server.asked if path == "/api/show"] == [{"model": "bert"}]


def test_a_cold_model_is_a_note(deployment: Deployment, server: Ollama) -> None:
    server.answers["/api/generate"] = TOKEN | {"load_duration": 4_200_000_000}
    found = deployment.walk()["cold_load"]
    assert (found.level, "4.2 s of it" in found.seen) == (Level.NOTE, True)


@pytest.mark.parametrize(
    ("patience", "slow"), [(0.2, 10.0), (60.0, 0.1)], ids=["none-came", "late-though-loaded"]
)
def test_a_token_that_is_late_is_found(
    deployment: Deployment, server: Ollama, monkeypatch: pytest.MonkeyPatch, patience: float, slow: float
) -> None:
    monkeypatch.setattr("proxy.doctor.first_token.PATIENCE", patience)
    monkeypatch.setattr("proxy.doctor.first_token.SLOW", slow)
    server.wait = 0.4
    assert deployment.walk()["first_token_late"].level is Level.WARNING


@pytest.mark.parametrize("answer", [{"error": "llama runner has terminated"}, b"not JSON", [1]])
def test_a_model_that_gives_no_token_is_an_error(
    deployment: Deployment, server: Ollama, answer: object
) -> None:
    server.answers["/api/generate"] = answer
    found = deployment.walk()["generation_fails"]
    assert (found.level, "ollama run tiny:latest" in found.mend) == (Level.ERROR, True)


def test_tokens_are_judged_by_how_long_they_took() -> None:
    assert judge(Token("m", 60.0, 0.0)).code == "first_token_late"
    assert judge(Token("m", 9.9, 0.0)).code == "first_token"
    assert judge(Token("m", 10.0, 0.0)).code == "first_token_late"
    assert judge(Token("m", 30.0, 29.0)).code == "cold_load"


def test_what_is_loaded_goes_first_and_then_the_smallest() -> None:
    tags = tuple(Model(name, size) for name, size in [("c", 3), ("a", 1), ("b", 2), ("d", 4)])
    seen = Seen(models=tags, loaded=(Model("d", 4, context=10), Model("gone", 1)))
    assert [model.name for model in candidates(seen)] == ["d", "a", "b", "c"]


@pytest.fixture
def real_ollama() -> str:
    """The URL of one that runs."""
    url = os.environ.get("OLLAMA_TEST_URL", DEFAULT_URL).rstrip("/")
    try:
        httpx.get(f"{url}/api/version", trust_env=False, timeout=10).raise_for_status()
    except httpx.HTTPError as fault:
        cannot_run(f"no Ollama answers at {url} ({type(fault).__name__}); name one with OLLAMA_TEST_URL")
    return url


def test_the_real_ollama_is_seen_as_it_is(real_ollama: str, tmp_path: Path) -> None:
    found = Deployment(tmp_path, real_ollama, tls={"mode": "off"}).walk()
    assert found["models"].level is Level.OK
    assert {"first_token", "cold_load"} & found.keys()
    assert "ollama_unreachable" not in found
