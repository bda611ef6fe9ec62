"""How the simulator is started and stopped: in a host's event loop, and as a command."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from proxy.simulator.app import create_app
from proxy.simulator.server import start


def test_it_lives_in_the_loop_of_its_host_and_leaves_the_signals_alone() -> None:
    async def scenario() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        simulator = await start(tokens_per_second=math.inf)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        async with httpx.AsyncClient() as client:
            assert (await client.get(simulator.url)).text == "Ollama is running"
        await simulator.stop()
        await simulator.stop()
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(simulator.url)

    asyncio.run(scenario())


def test_the_default_is_twenty_tokens_a_second() -> None:
    async def scenario() -> None:
        simulator = await start()
        request = {"model": "simulator", "prompt": "Hi", "stream": False, "options": {"num_predict": 10}}
        async with httpx.AsyncClient() as client:
            answer = (await client.post(f"{simulator.url}/api/generate", json=request)).json()
        await simulator.stop()
        assert 0.49e9 < answer["total_duration"] < 0.8e9
        assert 0.44e9 < answer["eval_duration"] < 0.8e9

    asyncio.run(scenario())


def test_stopping_breaks_off_the_streams_under_way() -> None:
    async def scenario() -> None:
        simulator = await start(tokens_per_second=20.0)
        request = {"model": "simulator", "prompt": "Hi"}
        async with (
            httpx.AsyncClient() as client,
            client.stream("POST", f"{simulator.url}/api/generate", json=request) as answer,
        ):
            stopping = time.monotonic()
            await simulator.stop()
            assert time.monotonic() - stopping < 1
            with pytest.raises(httpx.TransportError):
                await answer.aread()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(scenario())


def test_an_address_in_use_is_an_os_error() -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(OSError, match="already in use"):
            await start(port=port)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        asyncio.run(scenario(taken.getsockname()[1]))


@pytest.mark.parametrize("rate", [0, -1, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="tokens_per_second must be above 0"):
        create_app(rate)


def test_the_command_says_what_it_is_and_ends_on_sigterm() -> None:
    command = [
        sys.executable,
        "-m",
        "proxy.simulator",
        "--listen",
        "127.0.0.1:0",
        "--tokens-per-second",
        "1000",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        with contextlib.ExitStack() as stack:
            stack.callback(process.kill)
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(4)]
            assert "simulator of ollama-auth-proxy, not Ollama" in said[0]
            found = re.search(r"http://127\.0\.0\.1:\d+", said[1])
            assert found is not None
            assert "1000 tokens a second" in said[1]
            assert httpx.get(f"{found[0]}/api/version").status_code == 200
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=5)
        assert (process.returncode, out, err) == (0, "", "")


def test_the_command_refuses_wrong_usage_with_2_and_a_taken_address_with_1() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "proxy.simulator", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)

    wrong = run("--listen", "nowhere")
    assert wrong.returncode == 2
    assert "'nowhere' is not HOST:PORT" in wrong.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = run("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert refused.returncode == 1
    assert "Name another address with --listen" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_command_line_does_not_import_it_unasked() -> None:
    code = "import sys, proxy.__main__; sys.exit('proxy.simulator' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=10)
