"""A client that leaves in the middle of an answer frees Ollama for the next one.

Ollama answers one question at a time (OLLAMA_NUM_PARALLEL=1), so a short one that is asked during a long one
waits for its end, and is answered at once when the long one is cancelled.
"""

from __future__ import annotations

import json
import threading
import time

import httpx
import pytest

from ..wire.messages import request
from ..wire.site import Keys, Site
from .conftest import Ollama, Proxied, cannot_run

LONG = 1500
"""Tokens: about a minute. A model that counts does not stop before."""

COUNTING = " ".join(str(number) for number in range(1, 30))


class ShortQuestion(threading.Thread):
    """One token, asked at once; `answered_at` is the time of the answer."""

    def __init__(self, client: httpx.Client, model: str) -> None:
        super().__init__(daemon=True)
        self.client, self.model = client, model
        self.answered_at: float | None = None
        self.start()

    def run(self) -> None:
        body = {"model": self.model, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
        assert self.client.post("/api/generate", json=body).json()["done"]
        self.answered_at = time.monotonic()


def long_question(model: str, stream: bool) -> bytes:
    options = {"num_predict": LONG, "temperature": 0}
    return json.dumps(
        {"model": model, "prompt": COUNTING, "raw": True, "stream": stream, "options": options}
    ).encode()


@pytest.mark.parametrize("stream", [True, False], ids=["while it streams", "before its first byte"])
def test_a_client_that_leaves_in_mid_answer_frees_ollama_at_once(
    stream: bool, site: Site, ollama: Ollama, proxied: Proxied, keys: Keys
) -> None:
    client = proxied(keys.inference)
    started = time.monotonic()
    alone = ShortQuestion(client, ollama.model)
    alone.join(60)
    assert alone.answered_at is not None
    usual = alone.answered_at - started

    leaving = site.connect(timeout=60)
    leaving.send(request("POST", "/api/generate", keys.inference, body=long_question(ollama.model, stream)))
    if stream:
        answer = leaving.head("POST")
        assert answer.status == 200
        assert all(leaving.piece(answer) for _ in range(3))
    else:
        time.sleep(0.5)
    waiting = ShortQuestion(client, ollama.model)
    waiting.join(1 + 2 * usual)
    if waiting.answered_at is not None:
        cannot_run("this Ollama answers several questions at once; start it with OLLAMA_NUM_PARALLEL=1")
    if stream:
        assert b'"done":false' in leaving.piece(answer), "the long answer is over"

    left_at = time.monotonic()
    leaving.close()
    waiting.join(20)
    assert waiting.answered_at is not None, "Ollama goes on with an answer that nobody waits for"
    assert waiting.answered_at - left_at < 2 + 2 * usual  # the long answer would have taken a minute
