from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.store.keys import KeyStore, open_store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.db"


@pytest.fixture(params=["sqlite"])
def open_key_store(request: pytest.FixtureRequest, database: Path) -> Callable[[], KeyStore]:
    """Opens the store of one backend; called twice it opens the same one again, as two processes do."""
    return {"sqlite": lambda: open_store(database)}[request.param]


@pytest.fixture
def threads() -> Callable[[], set[threading.Thread]]:
    """The threads that somebody has to end; daemons may be of servers that other modules left running."""
    return lambda: {thread for thread in threading.enumerate() if not thread.daemon}


@pytest.fixture
def longest_turn() -> Callable[[], Awaitable[float]]:
    """Measures for a third of a second how long, in seconds, the event loop is held up at once."""

    async def measure() -> float:
        longest = 0.0
        for _ in range(30):
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)
        return longest

    return measure
