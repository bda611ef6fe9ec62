"""Asks the Go program in ``ollama_reader`` what Ollama would do with a request."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple

SOURCE = Path(__file__).parent / "ollama_reader"


class Sent(NamedTuple):
    """A request: ``route`` is its method and the path of its row; a path's value stands as ``body``."""

    route: str
    body: bytes
    content_type: str = ""


class Effect(NamedTuple):
    """What it would come to. ``keep_alive`` in nanoseconds; ``refused`` says why Ollama would not take it."""

    refused: str
    models: tuple[str, ...]
    cloud: bool
    remote: bool
    web: bool
    insecure: bool
    debug: bool
    options: dict[str, int]
    keep_alive: int | None


class OllamaReader:
    """The program, running. Answers come in the order of the questions."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, sent: Sequence[Sent]) -> list[Effect]:
        writer = Thread(target=self._write, args=(sent,))
        writer.start()
        assert self._process.stdout is not None
        answers = [_effect(self._process.stdout.readline()) for _ in sent]
        writer.join()
        return answers

    def keep_alive(self, texts: Sequence[str]) -> list[int | None]:
        """Nanoseconds of a JSON value as ``keep_alive``; None for what is refused."""
        return [answer.keep_alive for answer in self.ask([Sent("keep_alive", t.encode()) for t in texts])]

    def _write(self, sent: Iterable[Sent]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        for one in sent:
            for text in (one.route.encode(), one.content_type.encode("latin-1"), one.body):
                stdin.write(len(text).to_bytes(4, "big") + text)
        stdin.flush()

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


def _effect(line: bytes) -> Effect:
    found = json.loads(line)
    return Effect(
        found.get("refused", ""),
        tuple(found["models"] or ()),
        found["cloud"],
        found["remote"],
        found["web"],
        found["insecure"],
        found["debug"],
        found["options"] or {},
        found["keep_alive"],
    )
