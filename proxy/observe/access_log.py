"""One line a request. Never a credential, a prompt, an answer or a query string."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from proxy.identity.identity import Identity
from proxy.observe.log_stream import LogStream

FLUSH_AFTER = 0.05
"""Seconds for which entries are collected, as many in a row cost less and the thread wakes seldom."""


class Entry(NamedTuple):
    """What is told of a request. Times of `time.monotonic`; the durations in the line are milliseconds."""

    request_id: bytes
    client: str
    method: str
    route: str
    status: int
    code: str | None
    identity: Identity | None
    model: str | None
    received: int
    sent: int
    started_at: float
    ended_at: float
    first_byte_at: float
    input_tokens: int | None
    output_tokens: int | None
    outcome: str


class AccessLog:
    """Formats entries and hands them to the stream in batches."""

    def __init__(self, stream: LogStream, log_format: str) -> None:
        self._stream = stream
        self._format: Callable[[Entry, float], str]
        self._entries: list[Entry] = []
        self.set_format(log_format)

    def set_format(self, log_format: str) -> None:
        """``json`` or ``text``, for what is written from now on."""
        self._format = as_json if log_format == "json" else as_text

    def write(self, entry: Entry) -> None:
        if not self._entries:
            asyncio.get_running_loop().call_later(FLUSH_AFTER, self.flush)
        self._entries.append(entry)

    def flush(self) -> None:
        if self._entries:
            entries, self._entries = self._entries, []
            epoch = time.time() - time.monotonic()
            self._stream.write("".join([self._format(entry, epoch) for entry in entries]).encode())


def timestamp(now: float) -> str:
    """RFC 3339, UTC, milliseconds; ``now`` in unix seconds."""
    return _millisecond(int(now * 1000))


@lru_cache(maxsize=2)  # many requests end in one millisecond
def _millisecond(now: int) -> str:
    return f"{_second(now // 1000)}.{now % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


_NO_TOKENS = '"input_tokens":null,"output_tokens":null'


def as_json(entry: Entry, epoch: float) -> str:
    """Written by hand as it is done for every request; ``epoch`` is monotonic time zero in unix seconds.

    Nothing in it needs escaping: the request id is a plain token, names of keys, models and routes are plain
    ASCII by their own rules, the method is one that the parser knows.
    """
    request_id, started, first = entry.request_id.decode("ascii"), entry.started_at, entry.first_byte_at
    who = entry.identity
    what = (
        _what(entry.client, entry.method, entry.route, entry.status, entry.code, None, None, None)
        if who is None
        else _what(
            entry.client,
            entry.method,
            entry.route,
            entry.status,
            entry.code,
            who.key_id,
            who.key_name,
            who.auth,
        )
    )
    first_byte = f"{(first - started) * 1000:.3f}" if first else "null"
    model, tokens = "null", _NO_TOKENS
    if entry.model is not None:
        model = f'"{entry.model}"'
        read = "null" if entry.input_tokens is None else entry.input_tokens
        written = "null" if entry.output_tokens is None else entry.output_tokens
        tokens = f'"input_tokens":{read},"output_tokens":{written}'
    return (
        f'{{"time":"{timestamp(epoch + entry.ended_at)}","request_id":"{request_id}",{what},"model":{model},'
        f'"received_bytes":{entry.received},"sent_bytes":{entry.sent},'
        f'"duration_ms":{(entry.ended_at - started) * 1000:.3f},"queue_ms":0,"first_byte_ms":{first_byte},'
        f'{tokens},"outcome":"{entry.outcome}"}}\n'
    )


@lru_cache(maxsize=4096)
def _what(
    client: str,
    method: str,
    route: str,
    status: int,
    code: str | None,
    key_id: str | None,
    key_name: str | None,
    auth: str | None,
) -> str:
    """The members that recur from request to request."""
    members = {
        "client": client,
        "method": method,
        "route": route,
        "status": status,
        "code": code,
        "key_id": key_id,
        "key_name": key_name,
        "auth": auth,
    }
    return json.dumps(members, separators=(",", ":"))[1:-1]


def as_text(entry: Entry, epoch: float) -> str:
    """The same for people who read a terminal."""
    who = entry.identity.key_name or entry.identity.auth if entry.identity is not None else "-"
    code = f" {entry.code}" if entry.code is not None else ""
    cost = ""
    if entry.model is not None:
        tokens = ["?" if n is None else str(n) for n in (entry.input_tokens, entry.output_tokens)]
        cost = f" {entry.model} {'+'.join(tokens)}tokens"
    return (
        f"{timestamp(epoch + entry.ended_at)} {entry.client} {who} {entry.method} {entry.route}"
        f" {entry.status}{code}{cost}"
        f" {entry.sent}B {(entry.ended_at - entry.started_at) * 1000:.1f}ms {entry.outcome}"
        f" {entry.request_id.decode('ascii')}\n"
    )
