"""Continue (`cn -p`, the same code as in its editor plug-ins): key, trust and base URL in config.yaml."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..wire.site import Keys
from .conftest import DENIED, MODEL, OTHER, Served
from .programs import command, run

PROVIDERS = {"ollama": "", "openai": "/v1"}
every_provider = pytest.mark.parametrize("provider", PROVIDERS)


def ask(
    proxy: Served,
    home: Path,
    key: str,
    provider: str = "ollama",
    *,
    model: str = MODEL,
    base: str = "",
    trusts: bool = True,
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    options = {"requestOptions": {"caBundlePath": proxy.trust}} if trusts else {}
    entry = {
        "name": "test",
        "provider": provider,
        "model": model,
        "apiBase": (base or proxy.url) + PROVIDERS[provider],
        "apiKey": key,
        **options,
        **more,
    }
    config = {"name": "test", "version": "1.0.0", "schema": "v1", "models": [entry]}
    (home / "config.yaml").write_text(json.dumps(config))  # which is YAML too
    return run([*command("cn"), "-p", "Why is the sky blue? 🦙 世界", "--config", "config.yaml"], home)


@every_provider
def test_it_answers_with_a_key_for_one_model(
    provider: str, proxy: Served, limited: str, tmp_path: Path
) -> None:
    done = ask(proxy, tmp_path, limited, provider)
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_answers_with_an_ordinary_key(proxy: Served, keys: Keys, tmp_path: Path) -> None:
    done = ask(proxy, tmp_path, keys.default)
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_answers_with_the_key_in_the_base_url(proxy: Served, limited: str, tmp_path: Path) -> None:
    done = ask(proxy, tmp_path, "any", base=f"{proxy.url}/~{limited}")
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_shows_why_it_is_refused(proxy: Served, keys: Keys, limited: str, tmp_path: Path) -> None:
    wrong = ask(proxy, tmp_path, keys.unknown)
    assert "401 these credentials are not valid" in wrong.stdout + wrong.stderr
    other = ask(proxy, tmp_path, limited, model=OTHER)
    assert f"403 {DENIED}" in other.stdout + other.stderr


def test_a_key_for_short_answers_is_told_what_to_ask_for(proxy: Served, capped: str, tmp_path: Path) -> None:
    done = ask(proxy, tmp_path, capped)
    assert (
        "403 this key must say how long an answer may become: set 'max_tokens'" in done.stdout + done.stderr
    )
    done = ask(proxy, tmp_path, capped, defaultCompletionOptions={"maxTokens": 100})
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_what_its_editor_plug_ins_send_passes(proxy: Served, keys: Keys, limited: str) -> None:
    """The requests of core/llm/llms/Ollama.ts, which `cn` does not make."""
    options = {"temperature": 0.5, "num_predict": 2048, "stop": ["\n"], "num_ctx": 8192}
    more = {"options": options, "keep_alive": 1800, "stream": True}
    function = {"name": "read_file", "description": "🦙", "parameters": {"type": "object", "properties": {}}}
    messages = [{"role": "user", "content": "世界", "images": ["iVBORw0KGgo="]}]
    sent: dict[str, list[dict[str, Any]]] = {
        "/api/show": [{"name": MODEL}],
        "/api/chat": [
            {"model": MODEL, "messages": messages, **more},
            {"model": MODEL, "messages": messages, **more, "stream": False}
            | {"tools": [{"type": "function", "function": function}]},
        ],
        "/api/generate": [{"model": MODEL, "prompt": "def f(", "suffix": "):", "raw": True, **more}],
        "/api/embed": [{"model": MODEL, "input": ["one", "世界"]}],
    }
    for key in (keys.default, limited):
        for path, bodies in sent.items():
            for body in bodies:
                headers = {"Authorization": f"Bearer {key}"}
                with httpx.Client(verify=proxy.site.trust or True, trust_env=False) as client:
                    answer = client.post(f"{proxy.url}{path}", json=body, headers=headers)
                assert answer.status_code == 200, answer.text


def test_it_does_not_trust_another_certificate(proxy: Served, limited: str, tmp_path: Path) -> None:
    done = ask(proxy, tmp_path, limited, trusts=False)
    assert "Connection error" in done.stdout + done.stderr
