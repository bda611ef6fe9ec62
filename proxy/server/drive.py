"""Runs a request's coroutine from event to event, without a task of its own.

A request waits for one thing only, the end of its exchange, which a callback of the event loop brings.
Resuming the coroutine in that very callback saves the task, its future, two turns of the loop and a
weak-set entry: about a fifth of the CPU of a small request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Ended:
    """Something that ends once. Whoever awaits it is resumed inside the call of `end`."""

    __slots__ = ("_resume", "done")

    def __init__(self) -> None:
        self.done = False
        self._resume: Callable[[], None] | None = None

    def end(self) -> None:
        """Say so; a second time has no effect."""
        if not self.done:
            self.done = True
            if self._resume is not None:
                self._resume()

    def __await__(self) -> Generator[Ended, None, None]:
        if not self.done:
            yield self


class Drive:
    """Runs a coroutine to its first wait, and on from there each time what it waits for has come.

    It may await `Ended` and asyncio's futures; it has no current task, so what needs one (a time-out,
    for example) belongs into a task that it awaits. Whatever it raises is raised to whoever resumed it.
    """

    __slots__ = ("_step",)

    def __init__(self, coroutine: Coroutine[Any, None, None]) -> None:
        self._step = coroutine.send

    def resume(self, _: object = None) -> None:
        """Go on; called once to begin, and then by what was waited for."""
        try:
            waits_for: Any = self._step(None)
        except StopIteration:
            return
        if type(waits_for) is Ended:
            waits_for._resume = self.resume
        else:
            assert isinstance(waits_for, asyncio.Future)
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(self.resume)
