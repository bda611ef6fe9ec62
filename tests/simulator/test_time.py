"""What happens over time: pauses, cold loads, clients that leave, streams that break."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from itertools import pairwise

import httpx
import ollama
import pytest

HI = [{"role": "user", "content": "Hi"}]
STREAMING = [
    ("/api/generate", {"prompt": "Hi"}),
    ("/api/chat", {"messages": HI}),
    ("/v1/chat/completions", {"messages": HI, "stream": True}),
    ("/v1/completions", {"prompt": "Hi", "stream": True}),
    ("/v1/responses", {"input": "Hi", "stream": True}),
    ("/v1/messages", {"messages": HI, "stream": True, "max_tokens": 1000}),
]


def counters(http: httpx.Client, url: str) -> dict[str, int]:
    state: dict[str, int] = http.get(f"{url}/simulator/state").json()
    return state


def send(url: str, path: str, body: dict[str, object]) -> socket.socket:
    """A connection on which the request has been sent."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=5)
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(raw)}\r\n\r\n"
    connection.sendall(head.encode() + raw)
    return connection


def test_tokens_come_one_by_one_in_chunks_of_their_own_with_even_pauses(
    start_simulator: Callable[..., str],
) -> None:
    url = start_simulator(tokens_per_second=50.0)
    connection = send(
        url, "/api/generate", {"model": "simulator", "prompt": "Hi", "options": {"num_predict": 20}}
    )
    arrivals: list[tuple[float, bytes]] = []
    while not arrivals or not arrivals[-1][1].endswith(b"0\r\n\r\n"):
        data = connection.recv(65536)
        arrivals.append((time.monotonic(), data))
    connection.close()
    partial = [at for at, data in arrivals if b'"done":false' in data]
    assert len(partial) >= 15  # a busy machine may deliver some two at a time, but never all at once
    assert 0.3 < partial[-1] - partial[0] < 0.8
    assert max(after - before for before, after in pairwise(partial)) < 0.3
    assert sum(data.count(b'"done":false') for _, data in arrivals) == 20


def test_a_slow_model_holds_back_the_headers_until_it_is_loaded(
    start_simulator: Callable[..., str], http: httpx.Client
) -> None:
    url = start_simulator(load_seconds=0.4)
    before = time.monotonic()
    with http.stream("POST", f"{url}/api/chat", json={"model": "slow", "messages": HI}) as answer:
        assert time.monotonic() - before > 0.39
        last = json.loads(list(answer.iter_lines())[-1])
    assert last["load_duration"] > 0.39e9
    before = time.monotonic()
    http.post(f"{url}/api/chat", json={"model": "slow", "messages": HI})
    assert time.monotonic() - before < 0.3, "a loaded model answers at once"
    http.post(f"{url}/api/chat", json={"model": "slow", "messages": [], "keep_alive": 0})
    before = time.monotonic()
    http.post(f"{url}/v1/chat/completions", json={"model": "slow", "messages": HI})
    assert time.monotonic() - before > 0.39, "an unloaded model loads again"


@pytest.mark.parametrize("phase", ["loading", "whole", "streaming"])
def test_a_client_that_leaves_cancels_its_generation_within_100_ms(
    unhurried: str, http: httpx.Client, phase: str
) -> None:
    before = counters(http, unhurried)
    body: dict[str, object] = {"model": "slow" if phase == "loading" else "simulator", "messages": HI}
    connection = send(unhurried, "/api/chat", body | {"stream": phase != "whole"})
    if phase == "streaming":
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    else:
        time.sleep(0.1)
    assert counters(http, unhurried) == before
    connection.close()
    left = time.monotonic()
    while counters(http, unhurried) == before:
        assert time.monotonic() - left < 0.1
    assert counters(http, unhurried) == before | {"cancelled": before["cancelled"] + 1}


@pytest.mark.parametrize(("path", "body"), STREAMING)
def test_every_stream_read_to_its_end_counts_as_completed(
    simulator: str, http: httpx.Client, path: str, body: dict[str, object]
) -> None:
    before = counters(http, simulator)
    http.post(path, json=body | {"model": "simulator"})
    assert counters(http, simulator) == before | {"completed": before["completed"] + 1}


@pytest.mark.parametrize(("path", "body"), STREAMING)
def test_every_stream_that_its_client_leaves_counts_as_cancelled(
    unhurried: str, http: httpx.Client, path: str, body: dict[str, object]
) -> None:
    before = counters(http, unhurried)
    with http.stream("POST", unhurried + path, json=body | {"model": "simulator"}) as answer:
        next(answer.iter_raw())
    left = time.monotonic()
    while counters(http, unhurried) == before:
        assert time.monotonic() - left < 0.1
    assert counters(http, unhurried) == before | {"cancelled": before["cancelled"] + 1}


@pytest.mark.parametrize(("path", "body"), STREAMING)
def test_a_stream_that_breaks_ends_with_an_error_line_on_api_and_without_terminator_on_v1(
    simulator: str, http: httpx.Client, path: str, body: dict[str, object]
) -> None:
    counted = counters(http, simulator)
    answer = http.post(path, json=body | {"model": "error-midstream"})
    assert answer.status_code == 200
    assert answer.text.count("Hello!") == 1
    if path.startswith("/api/"):
        last = json.loads(answer.text.splitlines()[-1])
        assert list(last) == ["error"]
        assert '"done":true' not in answer.text
    else:
        assert "error" not in answer.text.replace("error-midstream", "").replace('"error":null', "")
        for end in ("[DONE]", 'finish_reason":"', "response.completed", "message_delta", "message_stop"):
            assert end not in answer.text
    assert counters(http, simulator) == counted, "a broken answer is neither completed nor cancelled"


@pytest.mark.parametrize(("path", "body"), STREAMING)
def test_an_answer_in_one_piece_that_breaks_is_a_500(
    http: httpx.Client, path: str, body: dict[str, object]
) -> None:
    answer = http.post(path, json=body | {"model": "error-midstream", "stream": False})
    assert answer.status_code == 500
    error = answer.json()["error"]
    text = error if isinstance(error, str) else error["message"]
    assert text.startswith("an error was encountered while running the model")


def test_the_ollama_client_raises_when_the_stream_breaks(ollama_client: ollama.Client) -> None:
    stream = ollama_client.chat("error-midstream", messages=HI, stream=True)
    with pytest.raises(ollama.ResponseError, match="always breaks here"):
        list(stream)


def test_a_connection_is_kept_for_the_next_request(simulator: str) -> None:
    with httpx.Client() as client:
        for _ in range(2):
            answer = client.post(f"{simulator}/api/chat", json={"model": "simulator", "messages": HI})
            assert "connection" not in answer.headers
        [connection] = client._transport._pool.connections  # type: ignore[attr-defined]
        assert "Request Count: 2" in repr(connection)
