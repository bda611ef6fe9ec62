"""One line a request. Never a credential, a prompt, an answer or a query string."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from proxy.identity.identity import Identity
from proxy.observe.log_stream import LogStream

FLUSH_AFTER = 0.05
"""Seconds for which lines are collected, so that the writing thread wakes seldom."""


@dataclass(slots=True)
class Entry:
    """What is told of a request. Times of `time.monotonic`; the durations in the line are milliseconds."""

    request_id: bytes
    client: str
    method: str
    route: str
    status: int
    code: str | None
    identity: Identity | None
    received: int
    sent: int
    started_at: float
    ended_at: float
    first_byte_at: float
    outcome: str


class AccessLog:
    """Formats entries and hands them to the stream in batches."""

    def __init__(self, stream: LogStream, log_format: str) -> None:
        self._stream = stream
        self._format: Callable[[Entry], str] = as_json if log_format == "json" else as_text
        self._lines: list[str] = []

    def write(self, entry: Entry) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_AFTER, self.flush)
        self._lines.append(self._format(entry))

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._stream.write("".join(lines).encode())


_second = (0, "")


def timestamp(now: float) -> str:
    """RFC 3339, UTC, milliseconds; ``now`` in unix seconds."""
    global _second  # the text of a second is made once
    second = int(now)
    if _second[0] != second:
        _second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return f"{_second[1]}.{int((now - second) * 1000):03d}Z"


def as_json(entry: Entry) -> str:
    """Written by hand because it is on the path of every request.

    Nothing in it needs escaping: the request id is a plain token, names of keys and routes are plain ASCII
    by their own rules, the method is one that the parser knows.
    """
    who = entry.identity
    key_id = f'"{who.key_id}"' if who is not None and who.key_id is not None else "null"
    key_name = f'"{who.key_name}"' if who is not None and who.key_name is not None else "null"
    auth = f'"{who.auth}"' if who is not None else "null"
    code = f'"{entry.code}"' if entry.code is not None else "null"
    started = entry.started_at
    first = f"{(entry.first_byte_at - started) * 1000:.3f}" if entry.first_byte_at else "null"
    return (
        f'{{"time":"{timestamp(time.time())}","request_id":"{entry.request_id.decode("ascii")}",'
        f'"client":"{entry.client}","method":"{entry.method}","route":"{entry.route}",'
        f'"status":{entry.status},"code":{code},"key_id":{key_id},"key_name":{key_name},"auth":{auth},'
        f'"model":null,"received_bytes":{entry.received},"sent_bytes":{entry.sent},'
        f'"duration_ms":{(entry.ended_at - started) * 1000:.3f},"queue_ms":0,"first_byte_ms":{first},'
        f'"input_tokens":null,"output_tokens":null,"outcome":"{entry.outcome}"}}\n'
    )


def as_text(entry: Entry) -> str:
    """The same for people who read a terminal."""
    who = entry.identity.key_name or entry.identity.auth if entry.identity is not None else "-"
    code = f" {entry.code}" if entry.code is not None else ""
    return (
        f"{timestamp(time.time())} {entry.client} {who} {entry.method} {entry.route} {entry.status}{code}"
        f" {entry.sent}B {(entry.ended_at - entry.started_at) * 1000:.1f}ms {entry.outcome}"
        f" {entry.request_id.decode('ascii')}\n"
    )
