"""Replicas are restarted under load, and no client notices: every answer is whole, to its end marker."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..clients.programs import cannot_run
from ..wire.site import command, free_port, make_key, toml
from ..wire.upstream import Upstream
from .load import KINDS, Load, Tally, answer

HAPROXY_CFG = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
START_TIMEOUT = 30.0

ACTIVATE = """
import os, sys
fd = int(sys.argv[1])
os.dup2(fd, 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="public")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does between fork and exec, sd_listen_fds(3)."""


class Replica:
    """`ollama-auth-proxy serve`, which can be restarted; it gets the socket `passed` as from systemd."""

    def __init__(self, folder: Path, store: Path, upstream: str, passed: socket.socket | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        self.passed = passed
        self.port = passed.getsockname()[1] if passed else free_port()
        self.ops_port = free_port()
        self.config = folder / "config.toml"
        self.config.write_text(
            toml(
                {
                    "listen": {"address": f"127.0.0.1:{self.port}", "trusted_proxies": ["127.0.0.1"]},
                    "tls": {"mode": "self-signed"},
                    "upstream": {"url": f"http://{upstream}"},
                    "ops": {"address": f"127.0.0.1:{self.ops_port}"},
                    "store": {"url": f"sqlite:///{store}"},
                    "log": {"access": False},
                }
            )
        )
        self.start()

    def start(self) -> None:
        """Start it; `wait_until_ready` waits for it."""
        words = [*command(), "serve", "--config", str(self.config)]
        fds = []
        if self.passed:
            fds = [self.passed.fileno()]
            words = [sys.executable, "-c", ACTIVATE, str(fds[0]), *words]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=fds, cwd=self.folder
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            assert self.process.poll() is None, f"the proxy did not start:\n{self.log()}"
            assert time.monotonic() < deadline, f"the proxy is not ready:\n{self.log()}"
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}/readyz", timeout=5) as found:
                return bool(found.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, f"streams were cut:\n{self.log()}"

    def log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    @property
    def certificate(self) -> Path:
        return self.folder / "data" / "tls.crt"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.answer = answer
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "keys.db"


@pytest.fixture(scope="module")
def key(store: Path) -> str:
    return make_key(store, "load")


def check(tally: Tally) -> None:
    assert not tally.faults, f"{len(tally.faults)} of {tally.good.total()}:\n" + "\n".join(tally.faults[:20])
    assert set(tally.good) == KINDS, "a kind of client asked nothing"
    assert min(tally.good.values()) >= 10, f"too little was asked: {tally.good}"


def test_with_socket_activation_a_restart_drops_nothing(
    tmp_path: Path, store: Path, key: str, upstream: Upstream
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        replica = Replica(tmp_path / "a", store, upstream.authority, listening)
        replica.wait_until_ready()
        trust = ssl.create_default_context(cafile=replica.certificate)
        with Load(replica.port, key, trust) as load:
            for restart in range(2):
                time.sleep(1)
                replica.stop()
                replica.start()  # who connects meanwhile waits
                replica.wait_until_ready()
                if restart == 0:
                    load.end_streams()
            time.sleep(0.5)
        replica.stop()
    check(load.tally)


class HaProxy:
    """A real one, with the documented configuration; only addresses and files are those of the test."""

    def __init__(self, folder: Path, replicas: dict[str, Replica]) -> None:
        program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if program is None:
            cannot_run("haproxy is not installed; on Debian, apt-get install haproxy")
        self.port = free_port()
        self.admin = folder / "admin.sock"
        self.log = folder / "haproxy.log"
        a, b = replicas["a"], replicas["b"]
        pair = folder / "ollama.pem"
        pair.write_text(a.certificate.read_text() + a.certificate.with_suffix(".key").read_text())
        trusted = folder / "replicas.pem"
        trusted.write_text(a.certificate.read_text() + b.certificate.read_text())
        text = HAPROXY_CFG.read_text()
        for before, after in {
            "log /dev/log local0": "log stderr format raw local0",
            "stats socket /run/haproxy/admin.sock": f"stats socket {self.admin}",
            "bind :443 ssl crt /etc/haproxy/ollama.pem": f"bind 127.0.0.1:{self.port} ssl crt {pair}",
            "ca-file /etc/haproxy/replicas.pem": f"ca-file {trusted}",
            "server a 192.0.2.11:8443": f"server a 127.0.0.1:{a.port} port {a.ops_port}",
            "server b 192.0.2.12:8443": f"server b 127.0.0.1:{b.port} port {b.ops_port}",
        }.items():
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        config = folder / "haproxy.cfg"
        config.write_text(text)
        with self.log.open("w") as log:
            self.process = subprocess.Popen([program, "-db", "-f", str(config)], stdout=log, stderr=log)

    def wait_until_up(self) -> None:
        """Wait until both replicas are."""
        deadline = time.monotonic() + 10
        while self.up() != {"a", "b"}:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def up(self) -> set[str]:
        """The replicas that are UP, which is 2 in what `show servers state` says."""
        try:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.settimeout(5)
                admin.connect(str(self.admin))
                admin.sendall(b"show servers state replicas\n")
                rows = [row.split() for row in admin.makefile().read().splitlines()]
        except OSError:
            return set()
        return {row[3] for row in rows if len(row) > 5 and row[1] == "replicas" and row[5] == "2"}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def test_two_replicas_behind_haproxy_are_restarted_without_a_failed_request(
    tmp_path: Path, store: Path, key: str, upstream: Upstream
) -> None:
    replicas = {name: Replica(tmp_path / name, store, upstream.authority) for name in "ab"}
    for replica in replicas.values():
        replica.wait_until_ready()
    haproxy = HaProxy(tmp_path, replicas)
    try:
        haproxy.wait_until_up()
        trust = ssl.create_default_context(cafile=replicas["a"].certificate)
        with Load(haproxy.port, key, trust) as load:
            for replica in replicas.values():
                time.sleep(1)
                replica.stop()
                replica.start()
                haproxy.wait_until_up()
                load.end_streams()
            time.sleep(0.5)
        for replica in replicas.values():
            replica.stop()
        while haproxy.up():
            time.sleep(0.05)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"https://localhost:{haproxy.port}/api/tags", context=trust)
        assert (refused.value.code, refused.value.headers["Retry-After"]) == (503, "1")
        assert json.load(refused.value)["error"].startswith("no replica is ready")
    finally:
        haproxy.stop()
    check(load.tally)
