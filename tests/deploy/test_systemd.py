"""The systemd units, installed on a machine with a real systemd by the commands of their own README."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.config import load

from .. import certificates
from ..clients.programs import cannot_run
from ..wire.client import Client
from ..wire.conftest import until
from ..wire.messages import request
from ..wire.site import free_port
from ..wire.upstream import Upstream, greet
from .load import KINDS, Load, answer
from .systemd_machine import CHECKOUT, Machine

UNITS = CHECKOUT / "deploy" / "systemd"
SERVICE, SOCKET = "ollama-auth-proxy.service", "ollama-auth-proxy.socket"
TESTED = re.compile(r"<!-- tested: in a machine with systemd -->\n```sh\n(.*?)```", re.DOTALL)
WORST_EXPOSURE = 12
"""Tenths, of what `systemd-analyze security` says; 100 is the worst."""

pytestmark = pytest.mark.xdist_group("systemd")


# Without a machine


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        cannot_run("systemd-analyze is not installed; on Debian, apt-get install systemd")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_the_unit_has_few_rights() -> None:
    done = analyze("security", "--offline=true", f"--threshold={WORST_EXPOSURE}", str(UNITS / SERVICE))
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    """With the program where the unit has it, and each drop-in in force."""
    program = tmp_path / "opt" / "ollama-auth-proxy" / "bin" / "ollama-auth-proxy"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    folder = tmp_path / "units"
    folder.mkdir()
    for unit in (SERVICE, SOCKET):
        text = (
            (UNITS / unit).read_text().replace("/opt/ollama-auth-proxy", f"{tmp_path}/opt/ollama-auth-proxy")
        )
        (folder / unit).write_text(text)
    shutil.copytree(UNITS / "drop-ins", folder / f"{SERVICE}.d")
    done = analyze("verify", "--man=no", str(folder / SERVICE), str(folder / SOCKET))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "ollama-auth-proxy" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_configuration_loads_and_says_where_the_socket_unit_listens(tmp_path: Path) -> None:
    text = (UNITS / "config.toml").read_text()
    assert tomllib.loads(text)["listen"]["address"] == "[::]:443"
    assert re.findall(r"^ListenStream=(.*)$", (UNITS / SOCKET).read_text(), re.MULTILINE) == ["443"]
    file = tmp_path / "config.toml"
    file.write_text(text.replace("/var/lib/ollama-auth-proxy", str(tmp_path)))
    assert load(file, {}).warnings == ()


# With one


@dataclass
class Served:
    """The proxy as installed, before an upstream of the test."""

    machine: Machine
    upstream: Upstream
    port: int
    ops_port: int
    key: str
    trust: ssl.SSLContext

    def connect(self) -> Client:
        return Client.connect(self.port, self.trust)

    def ask(self, path: str = "/api/version", body: bytes | None = None) -> tuple[int, bytes]:
        client = self.connect()
        answer = client.request(request("POST" if body else "GET", path, self.key, body=body))
        client.close()
        return answer.status, answer.body

    def ops(self, path: str, token: str = "") -> int:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.ops_port}{path}")
        if token:
            asked.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(asked, timeout=5) as found:
                status: int = found.status
                return status
        except urllib.error.HTTPError as error:
            return error.code

    def pid(self) -> str:
        return self.machine.show(SERVICE, "MainPID")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError):
                if self.ops("/readyz") == 200:
                    return
            assert time.monotonic() < deadline, self.machine.journal(SERVICE)
            time.sleep(0.05)

    def restart(self) -> None:
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", SERVICE)
        self.wait_until_ready()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    upstream = Upstream()
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        port, ops_port = free_port(), free_port()
        # What differs from the README: ports that are free here, and where the interpreter is.
        machine.write(
            f"/etc/systemd/system/{SOCKET}.d/port.conf", f"[Socket]\nListenStream=\nListenStream={port}"
        )
        machine.write(
            f"/etc/systemd/system/{SERVICE}.d/python.conf",
            "[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib",
        )
        install, start, *_ = commands()
        machine.run("sh", "-ec", f"cd /opt/checkout\n{install}")
        machine.run(
            "sed",
            "-i",
            f"s|127.0.0.1:11434|{upstream.authority}|; s|127.0.0.1:9464|127.0.0.1:{ops_port}|",
            "/etc/ollama-auth-proxy/config.toml",
        )
        (key,) = re.findall(r"^oap_\w+$", machine.run("sh", "-ec", start), re.MULTILINE)
        trust = ssl.create_default_context(cadata=machine.run("cat", "/var/lib/ollama-auth-proxy/tls.crt"))
        served = Served(machine, upstream, port, ops_port, key, trust)
        served.wait_until_ready()
        yield served
    finally:
        machine.stop()
        upstream.stop()


def commands() -> list[str]:
    """The blocks of the README, in order: install, start, certificate, doctor, reload."""
    found = TESTED.findall((UNITS / "README.md").read_text())
    assert len(found) == 5
    return found


def test_the_proxy_serves_as_installed(served: Served) -> None:
    assert served.ask() == (200, b'{"version":"0.24.0"}')
    assert served.machine.show(SERVICE, "StatusText").startswith("forwarding to http://127.0.0.1:")
    for unit in (SERVICE, SOCKET):
        assert served.machine.run("systemctl", "is-enabled", unit).strip() == "enabled"


def test_the_log_is_in_the_journal_as_json(served: Served) -> None:
    served.ask()
    time.sleep(0.3)
    lines = served.machine.journal(SERVICE).splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    assert "/api/version" in {entry.get("route") for entry in entries}
    assert all(line.startswith("{") or "ollama-auth-proxy.service" in line for line in lines), lines
    assert served.key not in "".join(lines)


def test_the_running_proxy_has_no_rights(served: Served) -> None:
    status = dict(
        line.split(":\t") for line in served.machine.run("cat", f"/proc/{served.pid()}/status").splitlines()
    )
    assert {status[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "0" not in status["Uid"].split()


@pytest.mark.parametrize(
    ("path", "modes"),
    [
        ("/etc/ollama-auth-proxy", "750 root ollama-auth-proxy"),
        ("/etc/ollama-auth-proxy/config.toml", "640 root ollama-auth-proxy"),
        ("/var/lib/ollama-auth-proxy", "700 ollama-auth-proxy ollama-auth-proxy"),
        ("/var/lib/ollama-auth-proxy/keys.db", "600 ollama-auth-proxy ollama-auth-proxy"),
        ("/var/lib/ollama-auth-proxy/tls.key", "600 ollama-auth-proxy ollama-auth-proxy"),
    ],
)
def test_files_are_for_those_who_need_them(path: str, modes: str, served: Served) -> None:
    assert served.machine.run("stat", "-c", "%a %U %G", path).strip() == modes


def test_a_large_body_is_judged_by_a_process_of_its_own(served: Served) -> None:
    """It is started inside the sandbox, and limits itself there."""
    body = json.dumps({"model": "m", "prompt": "cloud " * 100_000}).encode()
    assert served.ask("/api/generate", body)[0] == 200


def test_the_proxy_reaches_this_machine_and_no_other(served: Served) -> None:
    outside = [
        address for *_, (address, *_) in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # chooses the address that leads out, and sends nothing
        outside.append(probe.getsockname()[0])
    outside = [address for address in outside if not address.startswith("127.")]
    if not outside:
        pytest.skip("this machine has no address but loopback")
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]

        def connects(address: str) -> bool:
            """From a process in the control group of the proxy, to which the limits apply."""
            group = served.machine.show(SERVICE, "ControlGroup")
            program = (
                f"import socket; socket.create_connection(('{address}', {port}), 0.5); print('connected')"
            )
            script = f"""
                for tree in /sys/fs/cgroup /sys/fs/cgroup/unified
                do [ ! -e $tree/cgroup.procs ] || echo $$ > $tree{group}/cgroup.procs
                done
                exec /opt/ollama-auth-proxy/bin/python3 -c "{program}"
            """
            return "connected" in served.machine.run("sh", "-c", script, check=False)

        assert connects("127.0.0.1")
        assert not connects(outside[-1])
    # But clients from there do reach it.
    with socket.create_connection((outside[-1], served.port), 5) as raw:
        context = ssl.create_default_context(cadata=ssl.get_server_certificate(("127.0.0.1", served.port)))
        context.check_hostname = False
        with context.wrap_socket(raw) as wrapped:
            wrapped.sendall(request("GET", "/api/version", served.key))
            assert wrapped.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_reload_changes_what_can_be_changed_and_refuses_what_is_faulty(served: Served) -> None:
    machine, pid = served.machine, served.pid()
    file = "/etc/ollama-auth-proxy/config.toml"
    *_, reload = commands()
    machine.run("sed", "-i", r"$a[auth]\nanonymous = []", file)
    machine.run("sh", "-ec", reload)
    until(lambda: served.connect().request(request("GET", "/")).status == 401, 5)
    machine.run("sed", "-i", r"$anonsense = 1", file)
    assert "auth.nonsense: unknown key" in machine.run("sh", "-ec", reload, check=False)
    machine.run("systemctl", "reload", SERVICE)
    until(lambda: "configuration_refused" in machine.journal(SERVICE), 5)
    machine.run("sed", "-i", r"/nonsense/d; /^\[auth]/d; /anonymous/d", file)
    machine.run("sh", "-ec", reload)
    until(lambda: served.connect().request(request("GET", "/")).status == 200, 5)
    assert (machine.show(SERVICE, "ActiveState"), served.pid()) == ("active", pid)


def test_a_restart_under_load_drops_nothing(served: Served) -> None:
    served.upstream.answer = answer
    before = served.pid()
    with Load(served.port, served.key, served.trust) as load:
        time.sleep(0.5)
        served.restart()
        load.end_streams()
        time.sleep(0.5)
        served.restart()
        time.sleep(0.3)
    served.upstream.answer = greet
    tally = load.tally
    assert not tally.faults, f"{len(tally.faults)} of {tally.good.total()}:\n" + "\n".join(tally.faults[:20])
    assert set(tally.good) == KINDS
    assert served.pid() != before


def test_a_proxy_that_is_killed_is_started_again_and_who_connects_meanwhile_is_served(served: Served) -> None:
    before = served.pid()
    served.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", SERVICE)
    assert served.ask()[0] == 200
    assert served.pid() not in (before, "0")


def test_a_certificate_and_a_token_that_only_root_can_read_are_used(served: Served) -> None:
    machine = served.machine
    key = certificates.ec_key()
    live = "/etc/letsencrypt/live/ollama.example.com"
    machine.write(
        f"{live}/fullchain.pem", certificates.certificate(key, "ollama.example.com").decode(), 0o600
    )
    machine.write(f"{live}/privkey.pem", certificates.private_key(key).decode(), 0o600)
    machine.write("/etc/ollama-auth-proxy/ops-token", "a-token-of-the-test", 0o600)
    _, _, install, doctor, _ = commands()
    machine.run("sh", "-ec", f"cd /opt/checkout/deploy/systemd\n{install}")
    drop_in = (UNITS / "drop-ins" / "ops-token.conf").read_text().replace(":9464", f":{served.ops_port}")
    machine.write(f"/etc/systemd/system/{SERVICE}.d/ops-token.conf", drop_in)
    served.restart()
    shown = ssl.get_server_certificate(("127.0.0.1", served.port))
    assert shown.strip() == machine.run("cat", f"{live}/fullchain.pem").strip()
    assert (served.ops("/metrics"), served.ops("/metrics", "a-token-of-the-test")) == (401, 200)
    assert not machine.succeeds("runuser", "-u", "ollama-auth-proxy", "--", "cat", f"{live}/privkey.pem")
    machine.run("systemctl", "reload", SERVICE)
    time.sleep(0.5)
    assert "configuration_refused" not in machine.journal(SERVICE).rpartition("serving https")[2]
    told = machine.run("sh", "-c", doctor, check=False)
    assert (
        "ok       certificate_dates: tls.certificate (/run/credentials/ollama-auth-proxy.service/tls.crt)"
        in told
    )
    machine.run(
        "rm",
        *(f"/etc/systemd/system/{SERVICE}.d/{name}.conf" for name in ("certificate", "ops-token")),
    )
    served.restart()
    assert served.ask()[0] == 200


def test_the_address_is_changed_by_the_socket_unit(served: Served) -> None:
    old, served.port = served.port, free_port()
    served.machine.write(
        f"/etc/systemd/system/{SOCKET}.d/port.conf", f"[Socket]\nListenStream=\nListenStream={served.port}"
    )
    served.machine.run("systemctl", "daemon-reload")
    served.machine.run("systemctl", "restart", SOCKET)
    served.wait_until_ready()
    assert served.ask()[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old), 1)


def test_a_faulty_configuration_is_not_tried_again_and_again(served: Served) -> None:
    machine, file = served.machine, "/etc/ollama-auth-proxy/config.toml"
    machine.run("sed", "-i", r"$a[nonsense]", file)
    machine.run("systemctl", "restart", SERVICE, check=False)
    assert machine.show(SERVICE, "Result") == "exit-code"
    assert machine.show(SERVICE, "NRestarts") == "0"
    machine.run("sed", "-i", "/nonsense/d", file)
    assert served.ask()[0] == 200  # the port is still open, and who connects starts it
