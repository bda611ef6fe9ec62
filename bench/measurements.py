"""How each figure is taken: a load on one running proxy, and the proxy's own CPU and memory around it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from bench import procfs
from bench.effort import STREAMS, Effort
from bench.load import small_requests
from bench.load.target import Target
from bench.process import BenchError, running
from bench.proxies.site import Running, make_key, status_of

Values = dict[str, float]
SETTLE = 0.1
"""Seconds after a load, so that what a proxy puts off, such as its log, counts as well."""


@dataclass(frozen=True)
class Ground:
    """What all measurements of a run share."""

    effort: Effort
    load_core: int
    direct: Target  # the fake Ollama itself


Measure = Callable[[Ground, Running], Values]


def after_start(ground: Ground, proxy: Running) -> Values:
    """Memory once the first request is answered."""
    expect(200, proxy.target)
    return {"rss_mb": procfs.resident_bytes(proxy.pid) / 1e6}


def small_get(ground: Ground, proxy: Running) -> Values:
    """Small GETs with the right key."""
    return _gets(ground, proxy, 200)


def bad_key(ground: Ground, proxy: Running) -> Values:
    """Small GETs with a well-formed key that the proxy does not know."""
    return _gets(ground, replace(proxy, target=replace(proxy.target, key=make_key())), 401)


def garbage_key(ground: Ground, proxy: Running) -> Values:
    """Small GETs with a bearer token that is not a key at all."""
    return _gets(ground, replace(proxy, target=replace(proxy.target, key="garbage")), 401)


def _gets(ground: Ground, proxy: Running, status: int) -> Values:
    expect(status, proxy.target)
    if ground.effort.gets_warm_up:
        _wrk(ground, proxy.target, ground.effort.gets_warm_up)
    cpu, done = requests(ground, proxy, ground.effort.gets, status)
    expect(status, proxy.target)  # still: no throttle has stepped in
    return {"cpu_us": cpu / done.requests * 1e6, "rate": done.requests / done.seconds}


def requests(
    ground: Ground, proxy: Running, seconds: int, status: int = 200, post: bool = False
) -> tuple[float, small_requests.Counted]:
    """CPU seconds that small requests took, and what wrk counted; BenchError for any other status."""
    before = procfs.cpu_seconds(proxy.pid)
    done = _wrk(ground, proxy.target, seconds, post)
    time.sleep(SETTLE)
    cpu = procfs.cpu_seconds(proxy.pid) - before
    if done.refused != (0 if status == 200 else done.requests):
        raise BenchError(f"{done.refused} of {done.requests} requests were refused where {status} was due")
    return cpu, done


def in_turns(ground: Ground, proxy: Running, keys: list[str], post: bool = False) -> list[float]:
    """CPU that a small request takes with each of the keys, in microseconds; turns of a second each."""
    callers = [replace(proxy, target=replace(proxy.target, key=key)) for key in keys]
    for caller in callers:
        expect(200, caller.target)
    _wrk(ground, proxy.target, 1, post)
    taken: list[list[float]] = [[] for _ in callers]
    for turn in range(ground.effort.turns):
        for caller, times in list(zip(callers, taken, strict=True))[:: -1 if turn % 2 else 1]:
            cpu, done = requests(ground, caller, 1, post=post)
            times.append(cpu / done.requests * 1e6)
    return list(map(median, taken))


def _wrk(ground: Ground, target: Target, seconds: int, post: bool = False) -> small_requests.Counted:
    command = small_requests.command(target, seconds, post)
    with running(command, core=ground.load_core, talk=True) as process:
        output, _ = process.communicate(timeout=seconds + 30)
    try:
        return small_requests.parse(output)
    except ValueError as error:
        raise BenchError(str(error)) from error


def streams(ground: Ground, proxy: Running) -> Values:
    """400 chat streams from their first to their last chunk; the handshakes are made before."""
    effort = ground.effort
    for _ in range(20):
        expect(200, proxy.target)
    resident = procfs.resident_bytes(proxy.pid)
    counts = ["--streams", str(STREAMS), "--chunks", str(effort.chunks)]
    with running(load_command("streams", proxy.target, *counts), core=ground.load_core, talk=True) as process:
        assert process.stdin is not None
        line_of(process, "streams")
        before = procfs.cpu_seconds(proxy.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(effort.chunks * effort.pause / 2)
        grown = procfs.resident_bytes(proxy.pid) - resident
        done: Values = json.loads(line_of(process, "streams"))
        time.sleep(SETTLE)
        cpu = procfs.cpu_seconds(proxy.pid) - before
    return {
        "cpu_s": cpu,
        "stream_kb": grown / STREAMS / 1000,
        "seconds": done["seconds"],
        "reads_per_chunk": done["reads"] / done["chunks"],
        "load_cpu_s": done["load_cpu"],
    }


def upload(ground: Ground, proxy: Running) -> Values:
    """One large blob."""
    return _body(ground, proxy, "up", ground.effort.upload_mib)


def download(ground: Ground, proxy: Running) -> Values:
    """One large response."""
    return _body(ground, proxy, "down", ground.effort.download_mib)


def upload_tls(ground: Ground, proxy: Running) -> Values:
    """A blob over TLS, smaller because all sides pay for it."""
    return _body(ground, proxy, "up", ground.effort.tls_body_mib)


def download_tls(ground: Ground, proxy: Running) -> Values:
    """A large response over TLS."""
    return _body(ground, proxy, "down", ground.effort.tls_body_mib)


def _body(ground: Ground, proxy: Running, direction: str, mebibytes: int) -> Values:
    expect(200, proxy.target)
    before = procfs.cpu_seconds(proxy.pid)
    peak = resident = procfs.resident_bytes_roughly(proxy.pid)
    command = load_command("bodies", proxy.target, direction, str(mebibytes))
    with running(command, core=ground.load_core, talk=True) as process:
        while process.poll() is None:
            peak = max(peak, procfs.resident_bytes_roughly(proxy.pid))
            time.sleep(0.05)
        done: Values = json.loads(line_of(process, "bodies"))
        time.sleep(SETTLE)
        cpu = procfs.cpu_seconds(proxy.pid) - before
    return {
        "growth_mib": (peak - resident) / (1 << 20),
        "cpu_s_per_gib": cpu / mebibytes * 1024,
        "gib_per_s": mebibytes / 1024 / done["seconds"],
        "load_cpu_s": done["load_cpu"],
    }


def latency(ground: Ground, proxy: Running) -> Values:
    """What the proxy adds to a small GET while nothing else goes on."""
    expect(200, proxy.target)
    command = load_command(
        "latency", proxy.target, ground.direct.to_argument(), "--seconds", str(ground.effort.latency)
    )
    with running(command, core=ground.load_core, talk=True) as process:
        taken: Values = json.loads(line_of(process, "latency"))
    for percent in ("p50", "p99"):
        taken[f"added_{percent}_ms"] = taken[f"proxy_{percent}_ms"] - taken[f"direct_{percent}_ms"]
    return taken


def load_command(module: str, target: Target, *more: str) -> list[str]:
    """A load as a process of its own, with its target and whatever else it takes."""
    return [sys.executable, "-m", f"bench.load.{module}", target.to_argument(), *more]


def line_of(process: subprocess.Popen[str], what: str) -> str:
    """The next line that a load says; BenchError where it has failed, whose reason it told the terminal."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"the load '{what}' failed with {process.wait()}")
    return line


def expect(status: int, target: Target) -> None:
    """BenchError unless a small GET is answered by that status."""
    found = status_of(target)
    if found != status:
        raise BenchError(f"a small GET is answered by {found} instead of {status}")
