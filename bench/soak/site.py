"""The proxy and the simulator, each a process, and the commands that an operator gives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.certificate import make_certificate
from bench.process import ROOT, BenchError, free_port, last_lines, running, wait_until
from bench.proxies.site import listens
from bench.soak.issuer import AUDIENCE, ISSUER

GUARDED = 2 * 1024 * 1024
"""Bytes that a body which is looked at may have."""

HEADER_TIMEOUT = 5
"""Seconds that a client may take for the head of a request."""

TOKENS_PER_SECOND = 20
LOAD_SECONDS = 3
"""Seconds that the simulator's model `slow` takes to load."""

_CONFIG = f"""\
[listen]
address = "127.0.0.1:{{port}}"
header_timeout = "{HEADER_TIMEOUT}s"
drain_timeout = "20s"

[tls]
mode = "files"
certificate = "certificate.pem"
private_key = "key.pem"

[upstream]
url = "http://127.0.0.1:{{upstream_port}}"

[ops]
address = "127.0.0.1:{{ops_port}}"

[store]
url = "sqlite:///soak.db"

[auth]
path_keys = true
failures_per_minute = 300

[[auth.jwt]]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
algorithms = ["RS256"]
jwks_file = "jwks.json"

[policy]
max_guarded_body = "{GUARDED // 1024}KiB"

[cors]
allow_origins = ["https://{{page}}.example"]

[log]
format = "json"
"""


@dataclass(frozen=True)
class Site:
    """Where everything of a run stands; ``pid`` is that of the proxy."""

    directory: Path
    port: int
    ops_port: int
    upstream_port: int

    @property
    def access_log(self) -> Path:
        return self.directory / "access.log"

    @property
    def jwks(self) -> Path:
        return self.directory / "jwks.json"

    def write_config(self, page: str) -> None:
        """``page`` is the host of the one page that may use the proxy: what a reload changes."""
        text = _CONFIG.format(
            port=self.port, ops_port=self.ops_port, upstream_port=self.upstream_port, page=page
        )
        new = self.directory / "config.new"
        new.write_text(text)
        new.replace(self.directory / "config.toml")

    def renew_certificate(self) -> None:
        """Write another pair. Between the two files they do not match, which a reload then refuses."""
        make_certificate(self.directory)

    def command(self, *arguments: str) -> list[str]:
        config = str(self.directory / "config.toml")
        return [sys.executable, "-m", "proxy", *arguments, "--config", config]

    async def run(self, *arguments: str) -> str:
        """Give a command of ours and return what it prints; raises BenchError."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        out, err = await process.communicate()
        if process.returncode:
            raise BenchError(f"{arguments[:2]} failed: {last_lines(err.decode())}")
        return out.decode().strip()

    async def create_key(self, name: str, *more: str, scopes: str = "read inference manage") -> str:
        options = [option for scope in scopes.split() for option in ("--scope", scope)]
        return await self.run("keys", "create", name, *options, *more)

    def metrics(self, accept: str = "text/plain") -> str:
        """Blocking; raises OSError."""
        url = f"http://127.0.0.1:{self.ops_port}/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=20) as r:
            text: str = r.read().decode()
        return text

    async def usage(self) -> list[dict[str, object]]:
        """The rows of `usage`, by key and model."""
        text = await self.run("usage", "--since", "2h", "--by", "key", "--by", "model", "--format", "json")
        rows: list[dict[str, object]] = json.loads(text)["rows"]
        return rows


def read_log(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of requests in the proxy's log, and what it says went wrong in the proxy itself."""
    lines, faults = [], []
    with file.open() as log:
        for text in log:
            line = json.loads(text)
            if "outcome" in line:
                lines.append(line)
            elif line["level"] in ("error", "critical"):
                faults.append(text.strip())
    return lines, faults


def new_site(directory: Path) -> Site:
    site = Site(directory, free_port(), free_port(), free_port())
    site.write_config("a")
    site.renew_certificate()
    return site


@contextmanager
def serving(site: Site) -> Iterator[subprocess.Popen[str]]:
    """The proxy, from when it says that it lives until the block ends."""
    errors = site.directory / "errors.log"
    core = min(os.sched_getaffinity(0))
    with running(site.command("serve"), core=core, output=site.access_log, errors=errors) as process:
        wait_until(lambda: _lives(site.ops_port), process, "ollama-auth-proxy", errors)
        yield process


def _lives(ops_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Ollama:
    """The simulator in its place, as a process that can be killed and started again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Raises BenchError where it does not listen within 30 s."""
        command = [sys.executable, "-m", "proxy.simulator", "--listen", f"127.0.0.1:{self._port}"]
        command += ["--tokens-per-second", str(TOKENS_PER_SECOND), "--load-seconds", str(LOAD_SECONDS)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(  # noqa: ASYNC220  # what it waits for is the fork alone
            command, stdin=quiet, stdout=quiet, stderr=quiet, cwd=ROOT, start_new_session=True
        )
        for _ in range(600):
            if listens(self._port):
                return
            await asyncio.sleep(0.05)
        raise BenchError("the simulator did not listen within 30 s")

    def kill(self) -> None:
        """As the kernel does it: no connection is closed properly."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()
