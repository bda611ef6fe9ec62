"""Claude Code (`claude -p`): key, trust and base URL by the environment; what it shows when refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..wire.exchange import Exchange
from ..wire.site import Keys, Site
from ..wire.upstream import greet, message
from .conftest import DENIED, MODEL, OTHER, Served, served
from .programs import command, run

# The smallest PNG there is: one grey pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc00000030101"
    "00c9fe92ef0000000049454e44ae426082"
)


def ask(proxy: Served, home: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "ANTHROPIC_BASE_URL": proxy.url,
        "ANTHROPIC_MODEL": MODEL,
        "NODE_EXTRA_CA_CERTS": proxy.trust,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    words = [*command("claude"), *options, "-p", "Why is the sky blue? 🦙 世界"]
    return run(words, home, **(settings | environment))


@pytest.mark.parametrize("variable", ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"])
def test_it_answers_with_the_key_in_either_variable(
    variable: str, proxy: Served, keys: Keys, tmp_path: Path
) -> None:
    done = ask(proxy, tmp_path, **{variable: keys.default})
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_answers_with_a_key_for_one_model(proxy: Served, limited: str, tmp_path: Path) -> None:
    done = ask(proxy, tmp_path, ANTHROPIC_AUTH_TOKEN=limited)
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_answers_with_the_key_in_the_base_url(proxy: Served, limited: str, tmp_path: Path) -> None:
    base = f"{proxy.url}/~{limited}"
    done = ask(proxy, tmp_path, ANTHROPIC_BASE_URL=base, ANTHROPIC_AUTH_TOKEN="any")
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_shows_why_it_is_refused(proxy: Served, keys: Keys, limited: str, tmp_path: Path) -> None:
    # By itself it would try a refused key again, for three minutes: longer than it may run here.
    wrong = ask(proxy, tmp_path, ANTHROPIC_AUTH_TOKEN=keys.unknown, CLAUDE_CODE_MAX_RETRIES="10")
    assert wrong.returncode == 1
    assert "401 these credentials are not valid" in wrong.stdout
    other = ask(proxy, tmp_path, ANTHROPIC_AUTH_TOKEN=limited, ANTHROPIC_MODEL=OTHER)
    assert other.returncode == 1
    assert f"403 {DENIED} 'simulator:latest'" in other.stdout
    untold = ask(proxy, tmp_path, ANTHROPIC_AUTH_TOKEN=limited, ANTHROPIC_MODEL="")
    assert untold.returncode == 1
    assert f"403 {DENIED} 'claude-" in untold.stdout  # a model of Anthropic's is what it asks for by itself


def test_a_key_for_short_answers_is_told_what_to_ask_for(proxy: Served, capped: str, tmp_path: Path) -> None:
    done = ask(proxy, tmp_path, ANTHROPIC_AUTH_TOKEN=capped)
    assert "403 this key may not use 'max_tokens' like this" in done.stdout
    done = ask(proxy, tmp_path, ANTHROPIC_AUTH_TOKEN=capped, CLAUDE_CODE_MAX_OUTPUT_TOKENS="100")
    assert (done.returncode, "simulator" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_does_not_trust_another_certificate(proxy: Served, limited: str, tmp_path: Path) -> None:
    done = ask(proxy, tmp_path, ANTHROPIC_AUTH_TOKEN=limited, NODE_EXTRA_CA_CERTS="")
    assert done.returncode == 1
    assert "NODE_EXTRA_CA_CERTS" in done.stdout


@pytest.fixture
def scripted(keys: Keys, tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site", keys)
    yield site
    site.stop()


def test_files_and_pictures_that_it_reads_pass(scripted: Site, limited: str, tmp_path: Path) -> None:
    """The model asks for two files; what the client then sends holds a picture and text of all kinds."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "picture.png").write_bytes(PIXEL)
    (home / "notes.txt").write_text('Grüße 🦙 \u2028 {"model": "x:cloud"} \\u0041\n')
    bodies: list[bytes] = []

    def answer(exchange: Exchange) -> None:
        if not exchange.target.startswith("/v1/messages"):
            return greet(exchange)
        bodies.append(exchange.read_body())
        wanted = ["picture.png", "notes.txt"] if len(bodies) == 1 else []
        exchange.send(events([str(home / name) for name in wanted]))

    scripted.upstream.answer = answer
    done = ask(served(scripted), home, "--allowedTools", "Read", ANTHROPIC_AUTH_TOKEN=limited)
    assert (done.returncode, done.stdout.strip()) == (0, "All read."), done.stdout + done.stderr
    results = json.dumps(json.loads(bodies[-1])["messages"])
    assert '"type": "image"' in results
    assert "x:cloud" in results


def events(files: list[str]) -> bytes:
    """An answer of /v1/messages as Ollama sends it: calls that read files, or a last word."""
    calls = [
        {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {"file_path": file}}
        for number, file in enumerate(files)
    ]
    blocks: list[dict[str, Any]] = calls or [{"type": "text", "text": "All read."}]
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    usage = {"input_tokens": 1, "output_tokens": 1}
    sent: list[dict[str, Any]] = [{"type": "message_start", "message": head | {"usage": usage}}]
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            begun, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            begun = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        sent += [
            {"type": "content_block_start", "index": index, "content_block": begun},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    reason = "tool_use" if calls else "end_turn"
    sent += [
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in sent)
    return message("200 OK", [("Content-Type", "text/event-stream")], body.encode())
