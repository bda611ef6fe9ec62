"""Small GETs and chats on 32 connections by wrk, which is cheap enough to fill any of the proxies."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.load import chats
from bench.load.target import Target

CONNECTIONS = 32
_POST = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Counted:
    """What wrk counted."""

    requests: int
    refused: int  # answered with neither 2xx nor 3xx
    seconds: float


def wrk() -> str | None:
    """The path of wrk, where it is installed."""
    return shutil.which("wrk")


def command(target: Target, seconds: int, post: bool = False) -> list[str]:
    """wrk with one thread, for whole seconds (it knows no others); ``post`` sends chats of 1 KiB."""
    load = [wrk() or "wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"]
    load += ["--header", f"Authorization: Bearer {target.key}"]
    if post:
        return [*load, "--script", str(_POST), target.url + chats.PATH, "--", chats.small()]
    return [*load, target.url + "/api/version"]


def parse(output: str) -> Counted:
    """Read wrk's report; ValueError when there was a socket error, or there is nothing to read."""
    done = re.search(r"(\d+) requests in ([\d.]+)(m?)s", output)
    if done is None or "Socket errors" in output:
        raise ValueError(f"wrk could not do its work: {output.strip()}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    seconds = float(done[2]) / (1000 if done[3] else 1)
    return Counted(int(done[1]), int(refused[1]) if refused else 0, seconds)


def version() -> str:
    """wrk's own first line, or that it is missing."""
    if wrk() is None:
        return "wrk missing (Debian package wrk)"
    return subprocess.run([wrk() or "wrk", "-v"], capture_output=True, text=True).stdout.split("[")[0].strip()
