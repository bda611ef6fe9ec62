"""The stream of log lines: collected on the event loop, written by a thread, never waited for."""

from __future__ import annotations

import os
import queue
import select
import threading

MAX_BACKLOG = 16 * 1024 * 1024
"""Bytes that may wait for a reader that is slow or stopped; lines beyond are dropped and counted."""


class LogStream:
    """Writes whole lines to a file descriptor. `write` may be called from any thread and never blocks."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self._fd = fd
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._backlog = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write_forever, name="log", daemon=True)
        self._thread.start()

    def write(self, lines: bytes) -> None:
        """``lines`` end with a line break."""
        with self._lock:
            if self._backlog + len(lines) > MAX_BACKLOG:
                self.dropped += lines.count(b"\n")
                return
            self._backlog += len(lines)
        self._queue.put(lines)

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most ``timeout`` seconds."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _write_forever(self) -> None:
        while (lines := self._queue.get()) is not None:
            rest = memoryview(lines)
            try:
                while rest:
                    try:
                        rest = rest[os.write(self._fd, rest) :]
                    except BlockingIOError:  # a pipe that somebody else made non-blocking
                        select.select([], [self._fd], [])
            except OSError:  # nobody reads any more, or the disk is full; serving goes on
                self.dropped += bytes(rest).count(b"\n")
            with self._lock:
                self._backlog -= len(lines)
