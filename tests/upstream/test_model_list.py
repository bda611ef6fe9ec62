"""The names of models are asked for in the background; whatever answers, nothing breaks and nothing waits."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from proxy.upstream import json_answer, model_list
from proxy.upstream.model_list import follow_models, list_models

JSON = {"Content-Type": "application/json"}


class Ollama:
    """A server that answers /api/tags as the test says: ``pieces`` with ``wait`` seconds before each."""

    def __init__(self) -> None:
        self.status, self.headers = 200, dict(JSON)
        self.pieces: list[bytes] = []
        self.wait = 0.0
        self.asked = 0
        self.lie = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                assert self.path == "/api/tags"
                with suppress(OSError):
                    self.send_response(outer.status)
                    for name, value in outer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(sum(map(len, outer.pieces)) + outer.lie))
                    self.end_headers()
                    for piece in outer.pieces:
                        time.sleep(outer.wait)
                        self.wfile.write(piece)
                        self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def says(self, body: bytes | object, status: int = 200, **headers: str) -> None:
        self.pieces = [body if isinstance(body, bytes) else json.dumps(body).encode()]
        self.status, self.headers = status, JSON | headers


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    ollama = Ollama()
    yield ollama
    ollama.server.shutdown()
    ollama.server.server_close()


def ask(url: str) -> list[str] | None:
    async def within() -> list[str] | None:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await list_models(url, client)

    return asyncio.run(within())


def test_the_names_are_those_that_ollama_lists(ollama: Ollama) -> None:
    model = {"model": "x", "modified_at": "2026-01-01T00:00:00Z", "size": 1, "details": {"families": ["a"]}}
    ollama.says({"models": [model | {"name": "llama3.2:latest"}, model | {"name": "hf.co/a/b:Q4"}]})
    assert ask(ollama.url) == ["llama3.2:latest", "hf.co/a/b:Q4"]


def test_no_model_is_an_answer_too(ollama: Ollama) -> None:
    ollama.says({"models": []})
    assert ask(ollama.url) == []


def test_thousands_of_models_are_read(ollama: Ollama) -> None:
    ollama.says({"models": [{"name": f"model-{number}", "details": "x" * 500} for number in range(5000)]})
    assert len(ask(ollama.url) or []) == 5000


ODD: dict[str, object] = {
    "nothing": b"",
    "no-json": b"Ollama is running",
    "no-utf-8": b"\xff\xfe\x00",
    "torn-json": b'{"models":[{"name":"a"}',
    "a-list": [{"name": "a"}],
    "null": None,
    "a-number": 7,
    "no-models": {"version": "0.24.0"},
    "models-null": {"models": None},
    "models-a-number": {"models": 3},
    "models-of-numbers": {"models": [1, 2]},
    "models-of-lists": {"models": [[]]},
    "no-name": {"models": [{"model": "a"}]},
    "deep": b"[" * 200_000,
    "a-long-number": b'{"models":' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_an_odd_answer_tells_nothing(body: object, ollama: Ollama) -> None:
    ollama.says(body)
    assert ask(ollama.url) is None


def test_a_name_that_is_no_text_is_passed_over(ollama: Ollama) -> None:
    ollama.says({"models": [{"name": 7}, {"name": None}, {"name": {"a": 1}}, {"name": "good"}]})
    assert ask(ollama.url) == ["good"]


@pytest.mark.parametrize("status", [204, 301, 401, 404, 500, 503])
def test_any_other_status_tells_nothing(status: int, ollama: Ollama) -> None:
    ollama.says({"models": [{"name": "a"}]}, status, Location="http://127.0.0.1:1/")
    assert ask(ollama.url) is None


def test_an_answer_that_breaks_off_tells_nothing(ollama: Ollama) -> None:
    ollama.says({"models": [{"name": "a"}]})
    ollama.lie = 10
    assert ask(ollama.url) is None


def test_an_answer_that_is_compressed_is_read_and_garbage_is_not(ollama: Ollama) -> None:
    body = json.dumps({"models": [{"name": "a"}]}).encode()
    ollama.says(gzip.compress(body), 200, **{"Content-Encoding": "gzip"})
    assert ask(ollama.url) == ["a"]
    ollama.says(body, 200, **{"Content-Encoding": "gzip"})
    assert ask(ollama.url) is None


def test_an_endless_answer_ends_at_its_bound(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_answer, "LARGEST", 100_000)
    ollama.pieces = [b" " * 50_000] * 200
    assert ask(ollama.url) is None
    ollama.pieces = [b'{"models":[]}' + b" " * 90_000]
    assert ask(ollama.url) == []


def test_an_answer_that_drips_ends_in_its_time(ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_list, "TIMEOUT", 0.4)
    ollama.pieces, ollama.wait = [b" "] * 100, 0.1
    started = time.monotonic()
    assert ask(ollama.url) is None
    assert time.monotonic() - started < 2


def test_nobody_there_and_somebody_else_there_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_list, "TIMEOUT", 0.4)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        assert ask(f"http://127.0.0.1:{port}") is None, "it does not listen"
        silent.listen()
        assert ask(f"http://127.0.0.1:{port}") is None, "it says nothing"
    assert ask("http://127.0.0.1:1") is None


def test_a_server_that_speaks_no_http_tells_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert ask(f"http://127.0.0.1:{server.getsockname()[1]}") is None


def test_it_is_asked_again_and_while_ollama_is_away_the_last_names_stand(
    ollama: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_list, "INTERVAL", 0.05)
    monkeypatch.setattr(model_list, "RETRY_INTERVAL", 0.01)
    told: list[list[str]] = []

    def tell(names: Iterable[str]) -> None:
        told.append(list(names))

    async def until(condition: str) -> None:
        async with asyncio.timeout(5):
            while not told or told[-1] != [condition]:
                await asyncio.sleep(0.01)

    async def within() -> None:
        following = asyncio.create_task(follow_models(ollama.url, tell))
        await asyncio.sleep(0.1)
        assert not told, "there is nothing to tell yet"
        ollama.says({"models": [{"name": "first"}]})
        await until("first")
        ollama.says(b"", 500)
        await asyncio.sleep(0.15)
        count, asked = len(told), ollama.asked
        await asyncio.sleep(0.1)
        assert len(told) == count
        assert ollama.asked > asked
        ollama.says({"models": [{"name": "second"}]})
        await until("second")
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    ollama.says(b"", 500)
    asyncio.run(within())
