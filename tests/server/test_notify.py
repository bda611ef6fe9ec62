"""systemd learns what the proxy does, in its own words; and where it cannot, nothing happens."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from proxy.server.notify import READY, TIMEOUT, notify, reloading, status, stopping


def receiver(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(5)
    return sock


def test_a_state_arrives_at_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with receiver(path) as manager:
        notify(READY, {"NOTIFY_SOCKET": path})
        assert manager.recv(1000) == b"READY=1"


def test_a_state_arrives_at_an_abstract_address() -> None:
    name = f"ollama-auth-proxy-test-{time.monotonic_ns()}"
    with receiver("\0" + name) as manager:
        notify(f"{READY}\n{status('serving')}", {"NOTIFY_SOCKET": "@" + name})
        assert manager.recv(1000) == b"READY=1\nSTATUS=serving"


@pytest.mark.parametrize(
    ("state", "sent"),
    [
        (reloading(1_234_567_899), "RELOADING=1\nMONOTONIC_USEC=1234567"),
        (stopping(310.5), "STOPPING=1\nEXTEND_TIMEOUT_USEC=310500000"),
        (status("one line"), "STATUS=one line"),
        (status("two\nlines\r\nREADY=1\0"), "STATUS=two lines READY=1\0"),
    ],
)
def test_states_are_written_as_sd_notify_has_them(state: str, sent: str) -> None:
    assert state == sent


def test_a_status_is_sent_whatever_is_in_it(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with receiver(path) as manager:
        notify(status("größe \ud800"), {"NOTIFY_SOCKET": path})
        assert manager.recv(1000) == "STATUS=größe ?".encode()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "@",
        "/",
        "/nowhere/at/all",
        "relative",
        "vsock:2:1234",
        "@nobody-listens-here",
        "/" + "x" * 300,
        "@" + "x" * 300,
        "/nul\0in/it",
    ],
)
def test_an_address_where_nobody_is_does_no_harm(address: str) -> None:
    notify(READY, {"NOTIFY_SOCKET": address})


def test_without_a_service_manager_nothing_is_sent() -> None:
    notify(READY, {})


def test_a_service_manager_that_does_not_read_is_not_waited_for_long(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with receiver(path):
        begun = time.monotonic()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"x", path)
        notify(READY, {"NOTIFY_SOCKET": path})
        assert time.monotonic() - begun < TIMEOUT + 1
