"""This proxy by its own commands: every feature on, a key from its store, access log to a file."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load.target import Target
from bench.process import ROOT, BenchError, free_port, last_lines, running, wait_until
from bench.proxies.site import Running, Site

_CONFIG = """\
[listen]
address = "127.0.0.1:{port}"

[tls]
{tls}

[upstream]
url = "http://127.0.0.1:{upstream_port}"

[ops]
address = "127.0.0.1:{ops_port}"

[store]
url = "sqlite:///bench.db"

[log]
format = "json"
access = true
"""


@contextmanager
def ours(site: Site) -> Iterator[Running]:
    """Start it and wait until its ops listener says that it is ready."""
    port, ops_port = free_port(), free_port()
    config, errors = site.directory / "config.toml", site.directory / "errors.log"
    files = f'mode = "files"\ncertificate = "{site.certificate}"\nprivate_key = "{site.private_key}"'
    config.write_text(
        _CONFIG.format(
            port=port,
            ops_port=ops_port,
            upstream_port=site.upstream_port,
            tls=files if site.tls else 'mode = "off"',
        )
    )
    key = _create_key(config)
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
    access_log = site.directory / "access.log"
    with running(command, core=site.core, output=access_log, errors=errors) as process:
        wait_until(lambda: _ready(ops_port), process, "ollama-auth-proxy", errors)
        yield Running(process.pid, Target(port, site.tls, key))


def _create_key(config: Path) -> str:
    command = [sys.executable, "-m", "proxy", "keys", "create", "bench", "--config", str(config)]
    for scope in ("read", "inference", "manage"):
        command += ["--scope", scope]
    created = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if created.returncode:
        raise BenchError(f"ollama-auth-proxy made no key: {last_lines(created.stderr)}")
    return created.stdout.strip()


def _ready(ops_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
