"""The walk goes on whatever one check meets, and no check keeps it for long."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from proxy.config import load
from proxy.doctor import open_files, processes, store, walk
from proxy.doctor.bounded import in_thread
from proxy.doctor.findings import Level
from proxy.doctor.processes import parse_table

from .deployment import Deployment

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 4711 1 0
   1: 00000000:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
   2: 0100007F:2CAA 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0
   3: broken
"""
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:2CAA 0:0 0A 0:0 0:0 0 0 0 1 1
   1: 0000000000000000FFFF00000100007F:2CAA 0:0 0A 0:0 0:0 0 0 0 2 1
   2: B80D0120000000000000000001000000:2CAA 0:0 0A 0:0 0:0 0 0 0 3 1
"""


@pytest.mark.parametrize("fault", [TimeoutError, PermissionError, ValueError, RecursionError])
def test_a_check_that_breaks_is_a_note_and_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def look(_: Path) -> None:
        raise fault("canary-5d1f")

    deployment = Deployment(tmp_path, "http://127.0.0.1:9", tls={"mode": "off"})
    monkeypatch.setattr(store, "look", look)

    async def collect() -> list[walk.Finding]:
        config = load(deployment.write(), {})
        return [finding async for finding in walk.walk(config, deployment.file, lambda _: None)]

    findings = asyncio.run(collect())
    (broken,) = [one for one in findings if one.code in ("check_failed", "check_timed_out")]
    assert (broken.level, "the store" in broken.seen) == (Level.NOTE, True)
    assert findings[-1].code == "no_token_asked"
    assert "canary" not in repr(findings)


def test_what_blocks_for_ever_keeps_nobody() -> None:
    released = threading.Event()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(in_thread(released.wait, 0.1))
    assert time.monotonic() - begun < 2
    released.set()


def test_what_a_thread_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(lambda: 1 / 0, 5))
    assert asyncio.run(in_thread(lambda: 42, 5)) == 42


def test_sockets_are_read_from_the_tables_of_the_kernel() -> None:
    assert [(str(one.address), one.port, one.user, one.inode) for one in parse_table(TCP)] == [
        ("127.0.0.1", 11434, 998, "4711"),
        ("0.0.0.0", 8443, 0, "4712"),
    ]
    assert [str(one.address) for one in parse_table(TCP6)] == ["::", "127.0.0.1", "2001:db8::1"]


def test_who_serves_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        (seen,) = processes.listening(port)
        assert seen.address == ip_address("127.0.0.1")
        pid = processes.serving(port)
        assert pid is not None
        assert processes.user_of(pid) == seen.user
        assert processes.command_of(pid)
    assert processes.serving(port) is None


@pytest.mark.parametrize(
    ("limit", "code"),
    [(191, "open_files_limited"), (192, "open_files"), (-1, "open_files"), (None, "open_files_unknown")],
)
def test_the_limit_on_open_files_is_judged(limit: int | None, code: str) -> None:
    assert open_files.judge(limit, 64, running=True).code == code


def test_the_soft_limit_is_the_one_that_counts() -> None:
    line = "Max open files            1024                 524288               files     \n"
    assert open_files.parse(f"Max processes  1 1\n{line}") == 1024
    assert open_files.parse(line.replace("1024", "unlimited")) == -1
    assert open_files.parse("") is None
