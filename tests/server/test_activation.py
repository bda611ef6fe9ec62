"""Sockets that systemd opened are served; anything else that is passed is refused, with what to write."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.server import activation
from proxy.server.activation import ActivationError, sockets
from tests.clients.programs import cannot_run

PID = 4711

Passed = Callable[..., dict[str, str]]
Listen = Callable[[], socket.socket]


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passed]:
    """Put these where sockets are passed, and return the environment that goes with it."""
    first = 300
    monkeypatch.setattr(activation, "FIRST", first)
    descriptors: list[int] = []

    def put(*sockets: socket.socket | int, names: str | None = None, pid: int = PID) -> dict[str, str]:
        for fd, sock in enumerate(sockets, first):
            os.dup2(sock if isinstance(sock, int) else sock.fileno(), fd)
            descriptors.append(fd)
        environ = {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(sockets)), "HOME": "/root"}
        return environ if names is None else environ | {"LISTEN_FDNAMES": names}

    yield put
    for fd in descriptors:
        with contextlib.suppress(OSError):  # what was closed by a test
            os.close(fd)


@pytest.fixture
def listening() -> Iterator[Listen]:
    made: list[socket.socket] = []

    def listen(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        made.append(socket.create_server(("127.0.0.1", 0), family=family))
        return made[-1]

    yield listen
    for sock in made:
        sock.close()


def close(found: dict[str, socket.socket]) -> None:
    for sock in found.values():
        sock.close()


@pytest.mark.parametrize("names", [None, "unknown", "", "public", "ollama-auth-proxy.socket"])
def test_a_single_socket_is_the_public_one(names: str | None, passed: Passed, listening: Listen) -> None:
    sock = listening()
    found = sockets(passed(sock, names=names), PID)
    assert {name: one.getsockname() for name, one in found.items()} == {"public": sock.getsockname()}
    close(found)


@pytest.mark.parametrize("names", ["public:ops", "ops:public"])
def test_sockets_are_known_by_name_in_any_order(names: str, passed: Passed, listening: Listen) -> None:
    pair = [listening(), listening()]
    found = sockets(passed(*pair, names=names), PID)
    assert [found[name].getsockname() for name in names.split(":")] == [one.getsockname() for one in pair]
    close(found)


def test_the_ops_socket_may_come_alone(passed: Passed, listening: Listen) -> None:
    found = sockets(passed(listening(), names="ops"), PID)
    assert list(found) == ["ops"]
    close(found)


def test_accepted_connections_are_set_up_as_on_a_socket_of_our_own(passed: Passed, listening: Listen) -> None:
    sock = listening()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    found = sockets(passed(sock), PID)
    with socket.create_connection(sock.getsockname()):
        accepted, _ = found["public"].accept()
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    accepted.close()
    close(found)


def test_nothing_waits_for_a_client_and_no_child_gets_the_socket(passed: Passed, listening: Listen) -> None:
    found = sockets(passed(listening()), PID)
    assert not found["public"].get_inheritable()
    with pytest.raises(BlockingIOError):
        found["public"].accept()
    close(found)


def test_the_variables_are_gone_afterwards_and_others_stay(passed: Passed, listening: Listen) -> None:
    environ = passed(listening(), names="public") | {"LISTEN_PIDFDID": "12"}
    close(sockets(environ, PID))
    assert environ == {"HOME": "/root"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": str(PID)},
        {"LISTEN_PID": str(PID), "LISTEN_FDS": "0"},
        {"LISTEN_PID": str(PID + 1), "LISTEN_FDS": "1"},
        {"LISTEN_PID": "", "LISTEN_FDS": "1"},
    ],
)
def test_what_was_not_passed_to_us_is_left_alone(environ: dict[str, str]) -> None:
    assert sockets(environ, PID) == {}
    assert environ == {}


@pytest.mark.parametrize("number", ["x", "-1", "1.0", " 1", "99999", "²", "1" * 5000])
def test_a_wrong_number_is_told(number: str) -> None:
    with pytest.raises(ActivationError, match=r"LISTEN_FDS: .* not a number"):
        sockets({"LISTEN_PID": str(PID), "LISTEN_FDS": number}, PID)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("public", "1 names for 2 sockets"),
        ("public:ops:public", "3 names for 2 sockets"),
        ("public:", "a socket named '' was passed.*FileDescriptorName=public"),
        ("public:http", "a socket named 'http' was passed.*FileDescriptorName=public"),
        ("a.socket:b.socket", "a socket named 'a.socket' was passed.*FileDescriptorName=public"),
        ("public:public", "two sockets named 'public'.*ListenStream=PORT"),
    ],
)
def test_wrong_names_are_told(names: str, said: str, passed: Passed, listening: Listen) -> None:
    with pytest.raises(ActivationError, match=said):
        sockets(passed(listening(), listening(), names=names), PID)


def test_a_single_socket_with_a_name_of_another_program_is_refused(passed: Passed, listening: Listen) -> None:
    with pytest.raises(ActivationError, match=r"named 'dns' .*FileDescriptorName=public"):
        sockets(passed(listening(), names="dns"), PID)


def udp() -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def unix() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")  # a name of the kernel's choice, unix(7)
    sock.listen()
    return sock


def connected() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname())


def bound() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (udp, r"not for TCP: write ListenStream="),
        (unix, r"not for TCP: write ListenStream="),
        (connected, r"is a connection: write Accept=no"),
        (bound, r"does not listen.*: write Accept=no"),
    ],
)
def test_sockets_of_other_kinds_are_refused(make: Listen, said: str, passed: Passed) -> None:
    with make() as sock, pytest.raises(ActivationError, match=said):
        sockets(passed(sock), PID)


def test_what_is_no_socket_is_refused(passed: Passed, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(ActivationError, match=r"is no socket"):
        sockets(passed(file.fileno()), PID)


def test_a_descriptor_that_is_closed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "FIRST", 900)
    with pytest.raises(ActivationError, match=r"descriptor 900\) cannot be used: bad file descriptor"):
        sockets({"LISTEN_PID": str(PID), "LISTEN_FDS": "1"}, PID)


def test_after_a_fault_no_socket_stays_open(passed: Passed, listening: Listen) -> None:
    sock = listening()
    with udp() as other, pytest.raises(ActivationError):
        sockets(passed(sock, other, names="public:ops"), PID)
    for fd in (activation.FIRST, activation.FIRST + 1):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


ECHO = """
import os
from proxy.server.activation import sockets
found = sockets(os.environ, os.getpid())
found["public"].setblocking(True)
client, _ = found["public"].accept()
names = [name for name in os.environ if name.startswith("LISTEN_")]
client.sendall(f"{sorted(found)} {found['public'].fileno()} {names}".encode())
"""


@pytest.mark.parametrize("option", [[], ["--fdname=public"]])
def test_a_real_activator_passes_the_socket_on(option: list[str]) -> None:
    program = shutil.which("systemd-socket-activate")
    if program is None:
        cannot_run("systemd-socket-activate is not installed; on Debian, apt-get install systemd")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, f"--listen=127.0.0.1:{port}", *option, sys.executable, "-c", ECHO],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        while not re.search(r"Listening on ", line := process.stderr.readline()):
            assert line, "it ended"
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.settimeout(20)
            assert client.makefile().read() == "['public'] 3 []"
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
