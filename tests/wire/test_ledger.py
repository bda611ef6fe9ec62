"""What `usage` tells is what was sent: after a kill, a stop, by two proxies, to a store that is locked."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .. import program
from .exchange import Exchange
from .messages import request
from .site import ANSWER, PROMPT, Keys, Site
from .upstream import message

LOST_AT_MOST = 5.0
"""Seconds before a kill."""

Start = Callable[[], Site]


@pytest.fixture
def own_keys(keys: Keys, tmp_path: Path) -> Keys:
    """The same keys in a store in which nothing was counted."""
    store = tmp_path / "own" / "keys.db"
    store.parent.mkdir()
    with closing(sqlite3.connect(keys.store)) as shared, closing(sqlite3.connect(store)) as own:
        shared.backup(own)
        own.execute("DELETE FROM usage")
        own.commit()
    return replace(keys, store=store)


@pytest.fixture
def start(own_keys: Keys, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start_one() -> Site:
            site = Site(tmp_path / f"site{time.monotonic_ns()}", own_keys)
            stack.callback(site.stop)
            site.upstream.answer = generate
            return site

        yield start_one


def generate(exchange: Exchange) -> None:
    """Answer as Ollama does, with the tokens that the request asks for."""
    asked = json.loads(exchange.read_body() or b"{}")
    if exchange.target == "/api/chat":
        piece = {"model": "m", "message": {"role": "assistant", "content": ANSWER}, "done": False}
        end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True}
        end |= {"done_reason": "stop", "total_duration": 9, "load_duration": 1}
        end |= {"prompt_eval_count": asked["read"], "prompt_eval_duration": 1}
        end |= {"eval_count": asked["written"], "eval_duration": 1}
        lines = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in (piece, end))
        exchange.send(message("200 OK", [("Content-Type", "application/x-ndjson")], lines))
    else:
        exchange.send(message("200 OK", [("Content-Type", "application/json")], b'{"version":"0.24.0"}'))


def send(site: Site, sent: Counter[tuple[str, str]], count: int, start: int = 1) -> None:
    """Chats of two keys and a request of no model, counted in `sent`; and refusals, which are not."""
    client = site.connect()

    def ask(key: str, name: str, read: int, written: int) -> None:
        body = json.dumps({"model": "m", "messages": PROMPT, "read": read, "written": written}).encode()
        assert client.request(request("POST", "/api/chat", key, body=body)).status == 200
        sent.update({(name, "requests"): 1, (name, "input_tokens"): read, (name, "output_tokens"): written})

    for number in range(start, start + count):
        ask(site.keys.default, "default", number, 1000 * number)
        ask(site.keys.inference, "inference", 7, number)
    assert client.request(request("GET", "/api/version", site.keys.default)).status == 200
    sent["default", "requests"] += 1
    assert client.request(request("POST", "/api/chat", site.keys.read, body=b"{}")).status == 403
    assert client.request(request("GET", "/api/version", site.keys.unknown)).status == 401
    client.close()


def usage(site: Site, *options: str) -> list[dict[str, Any]]:
    done = program.run("usage", "--format", "json", *options, "--config", str(site.config))
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def counted(site: Site) -> Counter[tuple[str, str]]:
    return Counter(
        {
            (row["key_name"], sum_): row[sum_]
            for row in usage(site)
            for sum_ in ("requests", "input_tokens", "output_tokens")
        }
    )


def wait_until_counted(site: Site, sent: Counter[tuple[str, str]], deadline: float) -> None:
    while (found := counted(site)) != sent and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == sent


def test_a_kill_loses_nothing_that_was_done_five_seconds_before(start: Start) -> None:
    site, sent = start(), Counter[tuple[str, str]]()
    send(site, sent, 20)
    wait_until_counted(site, sent, time.monotonic() + LOST_AT_MOST)
    send(site, Counter(), 1)
    site.process.kill()
    site.process.wait()
    before = sent.copy()
    assert counted(site) == before  # the last ones were lost; they came a moment before
    (row,) = (row for row in usage(site) if row["key_name"] == "inference")
    assert row["key_id"] == site.keys.inference.split("_")[1]
    assert {row["model"] for row in usage(site, "--by", "model")} == {None, "other"}


def test_a_stop_loses_nothing(start: Start) -> None:
    site, sent = start(), Counter[tuple[str, str]]()
    send(site, sent, 20)
    site.terminate()
    assert site.exit_code() == 0
    assert counted(site) == sent


def test_two_proxies_add_up_though_the_store_is_locked_while_one_writes_and_one_ends(
    start: Start,
) -> None:
    one, other, sent = start(), start(), Counter[tuple[str, str]]()
    with closing(sqlite3.connect(one.keys.store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        send(one, sent, 5)
        send(other, sent, 5, start=100)
        time.sleep(4.2)  # both write every four seconds
        send(other, sent, 1)
        other.terminate()
        time.sleep(0.5)
        assert other.process.poll() is None
        assert not counted(one)
    assert other.exit_code() == 0
    wait_until_counted(one, sent, time.monotonic() + LOST_AT_MOST)
    send(one, sent, 1)
    one.terminate()
    assert one.exit_code() == 0
    assert counted(one) == sent
