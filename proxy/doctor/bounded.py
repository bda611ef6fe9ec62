"""Runs what blocks in a thread, for so long and no longer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(look: Callable[[], Result], seconds: float) -> Result:
    """What ``look`` returns. Raises what it raises, and TimeoutError.

    A thread of its own that nobody waits for: one of asyncio's executor would keep the process from ending
    while a network file system, or a name server, does not answer.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def set_result(result: Result) -> None:
        if not done.done():
            done.set_result(result)

    def set_fault(fault: BaseException) -> None:
        if not done.done():
            done.set_exception(fault)

    def run() -> None:
        try:
            result = look()
        except Exception as fault:
            _tell(loop, set_fault, fault)
        else:
            _tell(loop, set_result, result)

    threading.Thread(target=run, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await done


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[Result], None], news: Result) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(tell, news)
