"""Small GETs on 32 connections by wrk, which is cheap enough to fill any of the proxies."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from bench.load.target import Target

CONNECTIONS = 32


@dataclass(frozen=True)
class Gets:
    """What wrk counted."""

    requests: int
    refused: int  # answered with neither 2xx nor 3xx
    seconds: float


def wrk() -> str | None:
    """The path of wrk, where it is installed."""
    return shutil.which("wrk")


def command(target: Target, seconds: int) -> list[str]:
    """wrk with one thread, for whole seconds (it knows no others)."""
    load = [wrk() or "wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"]
    return [*load, "--header", f"Authorization: Bearer {target.key}", target.url + "/api/version"]


def parse(output: str) -> Gets:
    """Read wrk's report; ValueError when there was a socket error, or there is nothing to read."""
    done = re.search(r"(\d+) requests in ([\d.]+)(m?)s", output)
    if done is None or "Socket errors" in output:
        raise ValueError(f"wrk could not do its work: {output.strip()}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    seconds = float(done[2]) / (1000 if done[3] else 1)
    return Gets(int(done[1]), int(refused[1]) if refused else 0, seconds)


def version() -> str:
    """wrk's own first line, or that it is missing."""
    if wrk() is None:
        return "wrk missing (Debian package wrk)"
    return subprocess.run([wrk() or "wrk", "-v"], capture_output=True, text=True).stdout.split("[")[0].strip()
