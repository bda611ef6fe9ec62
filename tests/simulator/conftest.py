"""Simulators on real sockets, each in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import anthropic
import httpx
import ollama
import openai
import pytest

from proxy.simulator.server import start

FAST = 5000.0  # tokens a second


@contextmanager
def running(tokens_per_second: float = FAST, load_seconds: float = 0.3) -> Iterator[str]:
    """The URL of a simulator that lives as long as the block."""
    urls: list[str] = []
    stops: list[Callable[[], object]] = []
    ready = threading.Event()

    async def serve() -> None:
        simulator = await start(tokens_per_second=tokens_per_second, load_seconds=load_seconds)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        urls.append(simulator.url)
        stops.append(lambda: loop.call_soon_threadsafe(ended.set))
        ready.set()
        await ended.wait()
        await simulator.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(5)
    try:
        yield urls[0]
    finally:
        stops[0]()
        thread.join(5)


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    """The URL of a fast simulator shared by all tests that only ask it things."""
    with running() as url:
        yield url


@pytest.fixture(scope="session")
def http(simulator: str) -> Iterator[httpx.Client]:
    """A client of the shared simulator; whole URLs lead it to another one."""
    with httpx.Client(base_url=simulator) as client:
        yield client


@pytest.fixture(scope="session")
def ollama_client(simulator: str) -> Iterator[ollama.Client]:
    with closing(ollama.Client(simulator)) as client:
        yield client


@pytest.fixture(scope="session")
def openai_client(simulator: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{simulator}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def anthropic_client(simulator: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=simulator, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def unhurried() -> Iterator[str]:
    """The URL of a shared simulator with the default speed, whose model `slow` loads for a minute."""
    with running(tokens_per_second=20.0, load_seconds=60.0) as url:
        yield url


@pytest.fixture
def start_simulator() -> Iterator[Callable[..., str]]:
    """Starts a simulator of the test's own, with its own models, counters, speed and load time."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(**settings))
