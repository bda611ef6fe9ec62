"""A running proxy with its own upstream, configuration, keys and everything it printed."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import program
from .client import Client
from .upstream import Upstream

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
START_TIMEOUT = 30.0

Sample = tuple[str, dict[str, str], float]

# Tests put these into bodies and query strings; no proxy may ever print them.
PROMPT = "canary-prompt-5d1f"
ANSWER = "canary-answer-77ae"
QUERY = "canary-query-90b3"


WITH_CLOCK = """
import sys, time
from proxy.__main__ import main
real, ahead = time.time, float(sys.argv.pop()) - time.time()
time.time = lambda: real() + ahead
main()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxy", *arguments]


def well_formed_key(key_id: str, secret: str) -> str:
    """A key as in the interface: `oap_<id>_<secret><checksum>`, checksum the CRC-32 in base62."""
    text = f"oap_{key_id}_{secret}"
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return text + digits


@dataclass(frozen=True)
class Keys:
    """Keys by what they are good for, all in one store."""

    store: Path
    default: str
    every: str
    read: str
    inference: str
    manage: str
    push: str
    account: str
    revoked: str
    expired: str
    unknown: str = well_formed_key("0123456789", "A" * 43)
    more: list[str] = field(default_factory=list, init=False)

    def secrets(self) -> list[str]:
        whole = [*(value for value in vars(self).values() if isinstance(value, str)), *self.more]
        return [
            *whole,
            *(key.split("_", 2)[2] for key in whole),
            *(basic("ollama", key) for key in whole),
        ]


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def toml(tables: dict[str, dict[str, Any]]) -> str:
    """A list of objects becomes an array of tables."""
    lines: list[str] = []
    for table, values in tables.items():
        arrays = {name: value for name, value in values.items() if value and isinstance(value, list)}
        arrays = {name: value for name, value in arrays.items() if isinstance(value[0], dict)}
        plain = {name: value for name, value in values.items() if name not in arrays}
        lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in plain.items()), ""]
        for name, objects in arrays.items():
            for members in objects:
                lines += [
                    f"[[{table}.{name}]]",
                    *(f"{key} = {json.dumps(v)}" for key, v in members.items()),
                    "",
                ]
    return "\n".join(lines)


def keys_command(store: Path, *arguments: str) -> str:
    """Run a `keys` command on a store, and return what it printed on stdout."""
    config = store.with_name("keys.toml")
    if not config.exists():
        config.write_text(toml({"store": {"url": f"sqlite:///{store}"}}))
    done = program.run("keys", *arguments, "--config", str(config))
    assert done.returncode == 0, f"keys {arguments}: exit {done.returncode}\n{done.stderr}"
    return done.stdout.strip()


def make_key(store: Path, name: str, *options: str) -> str:
    made = keys_command(store, "create", name, *options)
    assert re.fullmatch(r"oap_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}", made), "stdout is not one key alone"
    return made


def make_keys(directory: Path) -> Keys:
    """Make every key by the command line, as an operator does; several at a time, as operators do."""
    store = directory / "keys.db"
    scopes = ["read", "inference", "manage", "push", "account"]
    wanted: dict[str, list[str]] = {
        "default": [],
        "every": [*(part for scope in scopes for part in ("--scope", scope)), "--cloud"],
        **{scope: ["--scope", scope] for scope in scopes},
    }
    expired = make_key(store, "expired", "--expires", "1s")
    revoked = make_key(store, "revoked")
    with ThreadPoolExecutor(3) as pool:
        revoking = pool.submit(keys_command, store, "revoke", revoked.split("_")[1])
        made = {name: pool.submit(make_key, store, name, *options) for name, options in wanted.items()}
    revoking.result()
    whole = {name: future.result() for name, future in made.items()}
    return Keys(store=store, revoked=revoked, expired=expired, **whole)


class Site:
    """`ollama-auth-proxy serve` as a process of its own, on free loopback ports.

    With `clock`, its time of day begins at that unix second.
    """

    def __init__(
        self,
        directory: Path,
        keys: Keys,
        *,
        wait_for: str = "/readyz",
        clock: float | None = None,
        **tables: dict[str, Any],
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.keys = keys
        self.upstream = Upstream()
        self.port, self.ops_port = free_port(), free_port()
        settings: dict[str, dict[str, Any]] = {
            "listen": {"address": f"127.0.0.1:{self.port}", "drain_timeout": "5s"},
            "tls": {"mode": "self-signed"},
            "upstream": {"url": f"http://{self.upstream.authority}"},
            "ops": {"address": f"127.0.0.1:{self.ops_port}"},
            "store": {"url": f"sqlite:///{keys.store}"},
            # Many tests send bad credentials from one address, and ask the account routes.
            "auth": {"failures_per_minute": 0},
            "policy": {"cloud": True},
        }
        for table, values in tables.items():
            settings.setdefault(table, {}).update(values)
        self.config = directory / "config.toml"
        self.config.write_text(toml(settings))
        tomllib.loads(self.config.read_text())
        self.log: list[dict[str, Any]] = []
        self.out, self.err = list[str](), list[str]()
        self.news = threading.Condition()
        self.process = subprocess.Popen(
            [*command(), "serve", "--config", str(self.config)]
            if clock is None
            else [sys.executable, "-c", WITH_CLOCK, "serve", "--config", str(self.config), str(clock)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
        )
        self.readers = [
            threading.Thread(target=self._collect, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self.readers:
            reader.start()
        try:
            self._wait_until_ready(wait_for)
        except BaseException:
            self.process.kill()
            raise
        self.trust = None if settings["tls"]["mode"] == "off" else self._trust(settings["tls"])

    def _collect(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self.news:
                lines.append(line)
                if lines is self.out and line.startswith("{"):
                    self.log.append(json.loads(line))
                self.news.notify_all()

    def _wait_until_ready(self, path: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            assert self.process.poll() is None, f"the proxy did not start:\n{''.join(self.err)}"
            try:
                if self.ops(path)[0] == 200:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, f"the proxy is not ready:\n{''.join(self.err)}"
            time.sleep(0.05)

    def _trust(self, tls: dict[str, Any]) -> ssl.SSLContext:
        """Trust the certificate of the proxy, and nothing else."""
        file = tls.get("certificate", self.config.parent / "data" / "tls.crt")
        context = ssl.create_default_context(cafile=file)
        context.set_alpn_protocols(["http/1.1"])
        return context

    # -- speaking to it

    def connect(self, **options: Any) -> Client:
        return Client.connect(self.port, self.trust, **options)

    def ops(self, path: str) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.ops_port}{path}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def samples(self) -> list[Sample]:
        """What /metrics says: name, labels and value of every sample."""
        found = []
        for line in self.ops("/metrics")[1].decode().splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)(?: \S+)?", line)
            if match:
                found.append(
                    (match[1], dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")), float(match[3]))
                )
        return found

    def metric(self, name: str, labels: dict[str, str], samples: list[Sample] | None = None) -> float:
        """The sum of the samples with this name and these labels; 0 when there is none."""
        return sum(
            value
            for sample, found, value in (self.samples() if samples is None else samples)
            if sample == name and labels.items() <= found.items()
        )

    def wait_for_metric(self, name: str, value: float, timeout: float = 2.0, **labels: str) -> float:
        """Wait until a sum has this value, and return the last one seen."""
        deadline = time.monotonic() + timeout
        while (seen := self.metric(name, labels)) != value and time.monotonic() < deadline:
            time.sleep(0.05)
        return seen

    def logged(self, request_id: str, timeout: float = 5.0) -> dict[str, Any]:
        """The access log line of a request."""

        def line() -> dict[str, Any] | None:
            found = [
                entry for entry in self.log if entry.get("request_id") == request_id and "outcome" in entry
            ]
            assert len(found) < 2, f"{len(found)} lines for one request"
            return found[0] if found else None

        with self.news:
            self.news.wait_for(line, timeout)
            found = line()
        assert found is not None, f"no access log line for {request_id}"
        return found

    def rss(self) -> int:
        """Resident memory of the proxy, bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    # -- ending it

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, timeout: float = 15.0) -> int:
        code = self.process.wait(timeout)
        for reader in self.readers:
            reader.join(5)
        return code

    def stop(self) -> None:
        """End the proxy and hold it to what must be true of every run."""
        self.upstream.stop()
        if self.process.poll() is None:
            self.terminate()
            try:
                assert self.exit_code() == 0, "exit code after SIGTERM"
            finally:
                self.process.kill()
        self.exit_code()
        printed = "".join(self.out) + "".join(self.err)
        assert "Traceback" not in printed, printed[printed.index("Traceback") :][:4000]
        assert "Task exception was never retrieved" not in printed
        for secret in (*self.keys.secrets(), PROMPT, ANSWER, QUERY):
            assert secret not in printed, "the proxy printed a secret, a prompt, an answer or a query string"
