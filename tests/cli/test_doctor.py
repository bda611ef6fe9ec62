"""`doctor`: what it prints where, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..doctor.deployment import Deployment, Ollama, ollama
from ..wire.site import Keys, Site, make_key
from .command import proxy

TOKEN = "canary-token-5d1f"


@pytest.fixture(scope="module")
def server() -> Iterator[Ollama]:
    with ollama() as server:
        yield server


@pytest.fixture
def deployment(server: Ollama, tmp_path: Path) -> Deployment:
    return Deployment(tmp_path, server.url, tls={"mode": "off"})


def test_a_finding_says_what_was_seen_and_how_to_mend_it(deployment: Deployment) -> None:
    done = proxy("doctor", "--config", str(deployment.write()))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("warning  proxy_not_running: nothing"))
    assert lines[at + 1].startswith("         mend: start it with 'ollama-auth-proxy serve'")
    assert any(line.startswith("ok       first_token: ") for line in lines)


def test_progress_and_the_sum_are_told_on_stderr(deployment: Deployment) -> None:
    done = proxy("doctor", "--config", str(deployment.write()), "--json")
    assert "asking tiny:latest for one token" in done.stderr
    assert done.stderr.endswith("the worst is: warning\n")
    assert "Traceback" not in done.stderr


def test_json_is_one_document(deployment: Deployment) -> None:
    done = proxy("doctor", "--config", str(deployment.write()), "--json")
    document = json.loads(done.stdout)
    assert set(document) == {"status", "findings"}
    assert document["status"] == "warning"
    assert all(set(finding) == {"level", "code", "seen", "mend"} for finding in document["findings"])
    assert {"ok", "warning"} <= {finding["level"] for finding in document["findings"]}


def test_every_fault_of_the_configuration_is_a_finding_and_the_exit_code_is_2(deployment: Deployment) -> None:
    deployment.write().write_text('[listen]\nadress = 1\nidle_timeout = "soon"\n')
    done = proxy("doctor", "--config", str(deployment.file), "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["status"] == "error"
    invalid = [one for one in document["findings"] if one["code"] == "config_invalid"]
    assert len(invalid) == 2
    assert "listen.adress" in invalid[0]["seen"] + invalid[1]["seen"]
    assert all(one["mend"] for one in invalid)
    assert document["findings"][-1]["code"] == "not_walked"


def test_a_configuration_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    assert proxy("doctor", "--config", str(tmp_path / "none.toml")).returncode == 2


def test_an_error_ends_with_2(deployment: Deployment) -> None:
    deployment.tables["upstream"]["url"] = "http://127.0.0.1:9"
    done = proxy("doctor", "--config", str(deployment.write()))
    assert done.returncode == 2
    assert "error    ollama_unreachable: " in done.stdout


def test_a_deployment_that_is_well_ends_with_0(server: Ollama, tmp_path: Path) -> None:
    store = tmp_path / "keys.db"
    site = Site(tmp_path, Keys(store, *[make_key(store, "laptop")] * 9), upstream={"url": server.url})
    try:
        done = proxy("doctor", "--config", str(site.config), "--json")
    finally:
        site.stop()
    worse = [one for one in json.loads(done.stdout)["findings"] if one["level"] in ("warning", "error")]
    assert [one for one in worse if one["code"] != "open_files_limited"] == []
    assert done.returncode == len(worse)


def test_no_secret_is_printed_even_where_it_is_written_in_the_wrong_place(
    deployment: Deployment, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o666)
    deployment.tables["ops"]["token_file"] = str(token)
    done = proxy("doctor", "--config", str(deployment.write()))
    assert "file_readable_by_others: ops.token_file" in done.stdout
    deployment.tables["ops"]["token_file"] = TOKEN
    deployment.tables["upstream"]["url"] = f"http://user:{TOKEN}@127.0.0.1:11434"
    other = proxy("doctor", "--config", str(deployment.write()))
    assert other.stdout.count("config_invalid") == 2
    assert "canary" not in done.stdout + done.stderr + other.stdout + other.stderr


def test_the_help_tells_the_exit_codes() -> None:
    text = proxy("doctor", "--help").stdout
    assert "0  nothing worse than a note" in text
    assert "ollama-auth-proxy doctor --config config.toml" in text
