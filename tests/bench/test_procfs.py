"""CPU time and memory are read as the kernel writes them."""

from __future__ import annotations

import os
import time

import pytest

from bench import machine, procfs
from bench.load.small_requests import Counted, parse

_STAT = "42 (a (b) c) S 1 42 42 0 -1 4194560 9 0 0 0 150 25 7 3 20 0 1 0 100 1000 10 18446744073709551615"


def test_cpu_ticks_are_user_and_system_time_whatever_the_name_of_the_process() -> None:
    assert procfs.cpu_ticks(_STAT) == 175


def test_kibibytes_are_found_by_the_whole_name() -> None:
    text = "VmHWM:\t  300 kB\nVmRSS:\t  200 kB\nRssAnon:\t 100 kB\n"
    assert procfs.kibibytes(text, "VmRSS") == 200
    with pytest.raises(KeyError):
        procfs.kibibytes(text, "Rss")


def test_cpu_seconds_of_this_process_grow_as_it_works() -> None:
    before, started = procfs.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - started < 0.1:
        pass
    assert 0.08 <= procfs.cpu_seconds(os.getpid()) - before < 2


def test_memory_that_is_touched_is_counted_both_ways() -> None:
    exact, rough = procfs.resident_bytes(os.getpid()), procfs.resident_bytes_roughly(os.getpid())
    held = bytearray(b"x" * (64 << 20))
    assert procfs.resident_bytes(os.getpid()) - exact > 60 << 20
    assert procfs.resident_bytes_roughly(os.getpid()) - rough > 60 << 20
    del held


def test_the_machine_is_described_from_proc() -> None:
    assert machine.cpu_model("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n") == "A CPU @ 2 GHz"
    assert machine.stolen_and_total("cpu  10 1 5 80 2 0 1 3 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n") == (3, 102)


def test_a_report_of_wrk_is_read() -> None:
    report = "  1 threads\n  46371 requests in 2.00s, 7.08MB read\n  Non-2xx or 3xx responses: 46371\n"
    assert parse(report) == Counted(46371, 46371, 2.0)
    assert parse("  9 requests in 500.00ms, 1KB read\n") == Counted(9, 0, 0.5)


@pytest.mark.parametrize(
    "report", ["", "9 requests in 1.00s, 1KB\n  Socket errors: connect 0, read 3, write 0, timeout 0\n"]
)
def test_a_report_of_wrk_with_socket_errors_or_nothing_in_it_is_no_figure(report: str) -> None:
    with pytest.raises(ValueError, match="wrk could not"):
        parse(report)
