"""This proxy by its own commands: every feature on, keys from its store, access log to a file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bench import tokens
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

[auth]
path_keys = true
# Counts every failure and never steps in: the 401s have to stay 401s.
failures_per_minute = 1000000
{issuers}

[policy]
cloud = true

[log]
format = "json"
access = true
"""
_TLS = """\
mode = "files"
certificate = "{certificate}"
private_key = "{private_key}"
client_ca = "{client_ca}"
client_auth = "optional"
"""
_ISSUER = """
[[auth.jwt]]
issuer = "{issuer}"
audience = "{audience}"
algorithms = ["{algorithm}"]
{source} = "{file}"
"""


class Keys(NamedTuple):
    """The texts of three keys: the usual one, one for some models only, one for everything."""

    usual: str
    limited: str
    free: str


@contextmanager
def ours(site: Site) -> Iterator[Running]:
    """Start it and wait until its ops listener says that it is ready."""
    port, ops_port = free_port(), free_port()
    config, errors = site.directory / "config.toml", site.directory / "errors.log"
    tls = _TLS.format(certificate=site.certificate, private_key=site.private_key, client_ca=site.client_ca)
    config.write_text(
        _CONFIG.format(
            port=port,
            ops_port=ops_port,
            upstream_port=site.upstream_port,
            tls=tls if site.tls else 'mode = "off"',
            issuers=_issuers(site.directory),
        )
    )
    store, keys = _store()
    (site.directory / "bench.db").write_bytes(store)
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
    access_log = site.directory / "access.log"
    with running(command, core=site.core, output=access_log, errors=errors) as process:
        wait_until(lambda: _ready(ops_port), process, "ollama-auth-proxy", errors)
        yield Running(process.pid, Target(port, site.tls, keys.usual), keys.limited, keys.free)


def _issuers(directory: Path) -> str:
    """Two of them, whose keys are in files of either kind."""
    return "".join(
        _ISSUER.format(
            issuer=tokens.issuer(algorithm),
            audience=tokens.AUDIENCE,
            algorithm=algorithm,
            source="jwks_file" if file.suffix == ".json" else "public_key_file",
            file=file,
        )
        for algorithm, file in tokens.write_public_keys(directory).items()
    )


@cache
def _store() -> tuple[bytes, Keys]:
    """A store with the keys, made once: the commands take longer than some of the loads."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        config = Path(name) / "config.toml"
        config.write_text('[store]\nurl = "sqlite:///bench.db"\n')
        keys = Keys(
            usual=_create_key(config, "usual"),
            limited=_create_key(
                config, "limited", "--model", "llama3.2", "--model", "qwen3:*", "--max-context", "8192"
            ),
            free=_create_key(config, "free", "--cloud", "--scope", "push", "--scope", "account"),
        )
        return (Path(name) / "bench.db").read_bytes(), keys


def _create_key(config: Path, name: str, *more: str) -> str:
    command = [sys.executable, "-m", "proxy", "keys", "create", name, "--config", str(config), *more]
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
