"""Tasks that run for as long as the proxy does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from proxy.observe.events import log


async def keep_running(work: Callable[[], Awaitable[None]]) -> None:
    """Begin a background task again when it fails; without the one that follows the store keys would stay."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a background task failed and is begun again")
        await asyncio.sleep(1)


async def every(seconds: float, work: Callable[[], None]) -> None:
    """Call ``work`` each time so many seconds have passed."""
    while True:
        await asyncio.sleep(seconds)
        work()


def log_loop_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop does with an exception that nobody took."""
    exception = context.get("exception")
    if isinstance(exception, (ssl.SSLError, ConnectionError, TimeoutError)):
        # A handshake that failed or a client that vanished: the network's everyday, not a fault of ours.
        log.debug("connection lost: %s", type(exception).__name__)
        return
    log.error(context.get("message", "fault in the event loop"), exc_info=exception)
