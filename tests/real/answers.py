"""Answers with the time at which each piece came, and without what differs each time they are given."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

# What Ollama makes anew for each answer.
_TIMES = re.compile(rb'"(created_at|completed_at|created|expires_at|\w*_duration)":("[^"]*"|\d+)')
_IDENTIFIERS = re.compile(rb'"(chatcmpl|cmpl|resp|msg|req|rs)[-_]\w+"')


@dataclass
class Answer:
    """One answer; `lines` of its body, each with the time (`time.time()`) at which its end arrived."""

    status: int
    headers: httpx.Headers
    lines: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(line for _, line in self.lines)

    @property
    def span(self) -> float:
        """Seconds from the first line to the last."""
        return self.lines[-1][0] - self.lines[0][0]

    def documents(self) -> list[dict[str, Any]]:
        """The JSON document of every line, or of every `data:` line of an event stream."""
        texts = [line.strip().removeprefix(b"data: ") for _, line in self.lines]
        return [json.loads(text) for text in texts if text.startswith(b"{")]


def ask(client: httpx.Client, method: str, path: str, body: object = None) -> Answer:
    """Send one request, and read the answer as it comes."""
    with client.stream(method, path, json=body) as response:
        answer = Answer(response.status_code, response.headers)
        rest = b""
        for data in response.iter_raw():
            arrived = time.time()
            *whole, rest = (rest + data).split(b"\n")
            answer.lines += [(arrived, line + b"\n") for line in whole]
        if rest:
            answer.lines.append((time.time(), rest))
    return answer


def unchanging(body: bytes) -> bytes:
    """The body with times, durations and generated identifiers emptied."""
    return _IDENTIFIERS.sub(rb'"\1"', _TIMES.sub(rb'"\1":""', body))


def without_ours(headers: httpx.Headers) -> list[tuple[str, str]]:
    """The headers in order, but for those that belong to a connection, a moment or the proxy.

    Durations have more or fewer digits, so lengths differ too.
    """
    apart = {"connection", "date", "content-length", "x-request-id", "request-id"}
    return [(name, value) for name, value in headers.multi_items() if name not in apart]


def made_at(line: dict[str, Any]) -> float:
    """When Ollama made a line of a native stream, by its own clock."""
    return datetime.fromisoformat(line["created_at"]).timestamp()
