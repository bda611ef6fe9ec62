"""On what a run was made: a figure without its machine says little."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import ssl
from pathlib import Path

from bench.load import small_requests
from bench.procfs import TICKS_PER_SECOND
from bench.proxies import caddy, nginx


def cpu_model(cpuinfo: str) -> str:
    """The first `model name` of /proc/cpuinfo; the architecture where it has none."""
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def stolen_and_total(stat: str) -> tuple[int, int]:
    """Ticks that the hypervisor gave to others, and all ticks, from the first line of /proc/stat."""
    ticks = [int(field) for field in stat.splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def describe() -> list[str]:
    """CPU, kernel and the versions of all that takes part."""
    packages = ", ".join(
        f"{name} {_version(name)}" for name in ("uvicorn", "uvloop", "httptools", "fastapi", "httpx")
    )
    model = cpu_model(Path("/proc/cpuinfo").read_text())
    return [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}",
        f"ollama-auth-proxy {_version('ollama-auth-proxy')} on Python {platform.python_version()}",
        f"{packages}, {ssl.OPENSSL_VERSION}",
        f"{nginx.version()}; {caddy.version()}; {small_requests.version()}",
        f"CPU times count in ticks of {1000 // TICKS_PER_SECOND} ms",
    ]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
