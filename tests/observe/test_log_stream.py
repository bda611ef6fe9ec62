"""The stream of log lines over real pipes: in order, never waited for, dropped where nobody reads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from proxy.observe import log_stream
from proxy.observe.log_stream import MAX_BACKLOG, LogStream

Pipe = tuple[int, int]

LINE = b"x" * 1023 + b"\n"
TOO_LONG = 0.5
"""Seconds that no call may take whose reader has stopped."""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:  # the test has closed it
            continue


def read_all(fd: int) -> bytes:
    """What has been written, once the other end is closed."""
    pieces = []
    while piece := os.read(fd, 65536):
        pieces.append(piece)
    return b"".join(pieces)


class Reader(threading.Thread):
    """Reads the pipe to its end beside the test."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self.fd = fd
        self.data = b""
        self.start()

    def run(self) -> None:
        self.data = read_all(self.fd)


def test_lines_come_out_whole_and_in_order(pipe: Pipe) -> None:
    reader = Reader(pipe[0])
    stream = LogStream(pipe[1])
    lines = [b"%d\n" % number for number in range(20_000)]
    for line in lines:
        stream.write(line)
    stream.close()
    os.close(pipe[1])
    reader.join(5)
    assert reader.data == b"".join(lines)
    assert stream.dropped == 0


def test_of_several_threads_each_ones_lines_stay_whole_and_in_order(pipe: Pipe) -> None:
    reader = Reader(pipe[0])
    stream = LogStream(pipe[1])

    def write(name: bytes) -> None:
        for number in range(2_000):
            stream.write(b"%b %d\n" % (name, number))

    threads = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream.close()
    os.close(pipe[1])
    reader.join(5)
    lines = reader.data.splitlines()
    for name in (b"a", b"b", b"c"):
        own = [line for line in lines if line.startswith(name)]
        assert own == [b"%b %d" % (name, number) for number in range(2_000)]
    assert len(lines) == 6_000


def test_a_line_longer_than_the_pipe_comes_out_whole(pipe: Pipe) -> None:
    reader = Reader(pipe[0])
    stream = LogStream(pipe[1])
    line = os.urandom(500_000).hex().encode() + b"\n"
    stream.write(line)
    stream.close()
    os.close(pipe[1])
    reader.join(5)
    assert reader.data == line


def test_close_writes_what_waits(pipe: Pipe) -> None:
    stream = LogStream(pipe[1])
    for number in range(100):
        stream.write(b"%d\n" % number)
    stream.close()
    os.close(pipe[1])
    assert read_all(pipe[0]).splitlines() == [b"%d" % number for number in range(100)]


def test_a_reader_that_stops_costs_lines_and_never_time(pipe: Pipe) -> None:
    stream = LogStream(pipe[1])
    batch = LINE * 64
    count = 2 * MAX_BACKLOG // len(batch)
    slowest = 0.0
    for _ in range(count):
        before = time.perf_counter()
        stream.write(batch)
        slowest = max(slowest, time.perf_counter() - before)
    assert slowest < TOO_LONG
    kept = 64 * count - stream.dropped
    assert stream.dropped > 0
    # The backlog is full; beside it stands what the pipe itself has taken.
    assert MAX_BACKLOG - len(batch) <= kept * len(LINE) <= MAX_BACKLOG + 2 * len(batch) + 65536

    # When the reader goes on, what was kept comes out whole, and so do new lines.
    reader = Reader(pipe[0])
    deadline = time.monotonic() + 5
    before_recovery = stream.dropped
    while time.monotonic() < deadline:
        stream.write(b"recovered\n")
        if stream.dropped == before_recovery:
            break
        before_recovery = stream.dropped
        time.sleep(0.01)
    stream.close()
    os.close(pipe[1])
    reader.join(5)
    lines = reader.data.splitlines(keepends=True)
    assert lines.count(LINE) == kept
    assert lines[-1] == b"recovered\n"
    assert len(lines) == kept + 1


def test_close_does_not_wait_for_a_reader_that_has_stopped(pipe: Pipe) -> None:
    stream = LogStream(pipe[1])
    for _ in range(64):
        stream.write(LINE * 64)
    before = time.monotonic()
    stream.close(timeout=0.1)
    assert time.monotonic() - before < TOO_LONG
    Reader(pipe[0]).join(0.2)  # lets the writing thread end before its pipe is closed


def test_a_reader_that_is_gone_costs_lines_that_are_counted(pipe: Pipe) -> None:
    os.close(pipe[0])
    stream = LogStream(pipe[1])
    for _ in range(10):
        stream.write(b"one\ntwo\n")
    stream.close()
    assert stream.dropped == 20


def test_lines_beyond_the_backlog_are_dropped_whole_and_counted_one_by_one(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "MAX_BACKLOG", 100)
    stream = LogStream(pipe[1])
    stream.write(b"a\n" * 51)
    stream.write(b"kept\n")
    stream.close()
    os.close(pipe[1])
    assert read_all(pipe[0]) == b"kept\n"
    assert stream.dropped == 51
