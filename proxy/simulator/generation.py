"""One answer being generated: its load, its tokens with their pauses, its figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from proxy.simulator.errors import OllamaError
from proxy.simulator.models import Catalogue, Model
from proxy.simulator.text import TOKENS

T = TypeVar("T")

_TOKENS_BEFORE_BREAKING = 5


@dataclass(slots=True)
class Simulation:
    """Everything one simulator knows: its speed, its models, its blobs, and how its answers ended."""

    tokens_per_second: float
    catalogue: Catalogue
    blobs: set[str] = field(default_factory=set)
    cancelled: int = 0
    completed: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the answer made here as completed, or cancelled if its client left; a failure is neither."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        self.completed += 1

    async def paced(self, items: Iterable[T]) -> AsyncIterator[T]:
        """The items at `tokens_per_second`, the first after one pause, without drift."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, item in enumerate(items, 1):
            await asyncio.sleep(max(0.0, start + number / self.tokens_per_second - loop.time()))
            yield item


class Generation:
    """One run of `tokens`; its figures are complete when that has ended."""

    def __init__(
        self,
        simulation: Simulation,
        model: Model,
        prompt_tokens: int,
        limit: int = 0,
        keep_alive: float | None = None,
    ) -> None:
        """`limit` is the most tokens to give (0 or less: all); `keep_alive` is in seconds (None: default)."""
        self._simulation = simulation
        self._model = model
        self._limit = limit
        self._keep_alive = keep_alive
        self.prompt_tokens = prompt_tokens
        self.output_tokens = 0
        self.done_reason = "stop"
        self._started = self._loaded = self._first = self._ended = time.perf_counter_ns()

    async def load(self) -> None:
        """Wait as long as the model takes to load if it is cold, then keep it loaded."""
        if not self._simulation.catalogue.is_loaded(self._model):
            await asyncio.sleep(self._model.load_seconds)
        self._simulation.catalogue.keep_loaded(self._model, self._keep_alive)
        self._loaded = self._first = self._ended = time.perf_counter_ns()

    async def tokens(self) -> AsyncIterator[str]:
        """Load the model if it is cold, then give the answer token by token.

        Raises OllamaError (500) half-way if the model is one that breaks.
        """
        await self.load()
        async for token in self._simulation.paced(TOKENS):
            if self._model.breaks and self.output_tokens == _TOKENS_BEFORE_BREAKING:
                raise OllamaError(
                    500, "an error was encountered while running the model: this model always breaks here"
                )
            self.output_tokens += 1
            self._ended = time.perf_counter_ns()
            if self.output_tokens == 1:
                self._first = self._ended
            yield token
            if self.output_tokens == self._limit:
                self.done_reason = "length"
                break
        self._simulation.catalogue.keep_loaded(self._model, self._keep_alive)

    async def whole(self) -> str:
        """The answer in one piece, after the time it takes."""
        return "".join([token async for token in self.tokens()])

    def metrics(self) -> dict[str, int]:
        """The figures of the last native chunk: nanoseconds and tokens; zero is left out, as Go does."""
        figures = {
            "total_duration": time.perf_counter_ns() - self._started,
            "load_duration": self._loaded - self._started,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": self._first - self._loaded,
            "eval_count": self.output_tokens,
            "eval_duration": self._ended - self._first,
        }
        return {name: figure for name, figure in figures.items() if figure}
