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

from ..clients.programs import cannot_run
from ..wire.messages import request
from ..wire.site import Keys, Site
from .conftest import Ollama, Proxied

LONG = 1500
"""Tokens asked for; a small model that counts gets to several hundred."""

PROMPTLY = 200
"""In the time of so many tokens the short question must be answered; Ollama takes up to 50 to stop."""

COUNTING = " ".join(str(number) for number in range(1, 30))


class ShortQuestion(threading.Thread):
    """Asked at once; `answered_at` is the time of the answer."""

    def __init__(self, client: httpx.Client, model: str) -> None:
        super().__init__(daemon=True)
        self.client, self.model = client, model
        self.answered_at = 0.0
        self.start()

    def run(self) -> None:
        body = {"model": self.model, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
        assert self.client.post("/api/generate", json=body).json()["done"]
        self.answered_at = time.monotonic()


def long_question(model: str, stream: bool) -> bytes:
    options = {"num_predict": LONG, "temperature": 0}
    body = {"model": model, "prompt": COUNTING, "raw": True, "stream": stream, "options": options}
    return json.dumps(body).encode()


@pytest.mark.parametrize("stream", [True, False], ids=["while it streams", "before its first byte"])
def test_a_client_that_leaves_in_mid_answer_frees_ollama(
    stream: bool, site: Site, ollama: Ollama, proxied: Proxied, keys: Keys, seconds_a_token: float
) -> None:
    client = proxied(keys.inference)
    started = time.monotonic()
    alone = ShortQuestion(client, ollama.model)
    alone.join()
    assert alone.answered_at, "a short question by itself was not answered"
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
    waiting.join(1 + usual)
    if waiting.answered_at:
        cannot_run("this Ollama answers several questions at once; start it with OLLAMA_NUM_PARALLEL=1")
    if stream:
        assert b'"done":false' in leaving.piece(answer), "the long answer is over already"

    left_at = time.monotonic()
    leaving.close()
    waiting.join()
    assert waiting.answered_at, "Ollama went on with an answer that nobody waits for"
    assert waiting.answered_at - left_at < usual + PROMPTLY * seconds_a_token
