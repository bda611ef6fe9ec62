"""How the figures of the guard are taken: bodies that it reads beside others, on one proxy."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from bench import procfs
from bench.load.target import Target
from bench.measurements import SETTLE, Ground, Values, expect, in_turns, line_of, load_command
from bench.process import running
from bench.proxies.site import Running


def small(ground: Ground, proxy: Running) -> Values:
    """Chats of 1 KiB: with a key for everything, with one for some models, and with the usual one."""
    free, parsed, scanned = in_turns(
        ground, proxy, [proxy.free_key, proxy.limited_key, proxy.target.key], post=True
    )
    return {"free_us": free, "parse_ms": (parsed - free) / 1000, "scan_ms": (scanned - free) / 1000}


def large(ground: Ground, proxy: Running) -> Values:
    """Chats of 10 MiB: the time to their answer with a limited key less that with one for everything."""
    free = replace(proxy.target, key=proxy.free_key)
    limited = replace(proxy.target, key=proxy.limited_key)
    expect(200, free)
    values = _large(ground, free, limited, "picture")
    values |= _large(ground, free, limited, "text")
    values |= _large(ground, free, limited, "numbers", times=2)
    scanned = _large(ground, free, proxy.target, "text")
    return {**values, "scan_ms": scanned["text_ms"]}


def _large(ground: Ground, free: Target, guarded: Target, kind: str, times: int = 0) -> Values:
    more = [guarded.to_argument(), kind, "--times", str(times or ground.effort.large)]
    with running(load_command("large_chats", free, *more), core=ground.load_core, talk=True) as process:
        taken: Values = json.loads(line_of(process, "large_chats"))
    values = {f"{kind}_{name}": taken[name] for name in ("free_ms", "guarded_ms", "first_ms")}
    return {f"{kind}_ms": taken["guarded_ms"] - taken["free_ms"], **values}


def neighbour(ground: Ground, proxy: Running) -> Values:
    """Small GETs while chats of 10 MiB pour in: guarded ones where the proxy has a guard, and free ones."""
    expect(200, proxy.target)
    values: Values = {}
    if proxy.limited_key:
        values |= _pour(ground, proxy, proxy.limited_key, "guarded")
    return values | _pour(ground, proxy, proxy.free_key or proxy.target.key, "free")


def _pour(ground: Ground, proxy: Running, key: str, name: str) -> Values:
    load = load_command("pour", replace(proxy.target, key=key))
    look = load_command("neighbour", proxy.target, "--seconds", str(ground.effort.pour))
    with running(load, core=ground.load_core, talk=True) as pouring:
        line_of(pouring, "pour")
        before = procfs.cpu_seconds(proxy.pid)
        with running(look, core=ground.load_core, talk=True) as neighbour:
            waits: Values = json.loads(line_of(neighbour, "neighbour"))
        assert pouring.stdin is not None
        pouring.stdin.write("\n")
        pouring.stdin.flush()
        poured: Values = json.loads(line_of(pouring, "pour"))
        time.sleep(SETTLE)
        cpu = procfs.cpu_seconds(proxy.pid) - before
    values = {f"{name}_{percent}": waits[percent] for percent in ("p50_ms", "p99_ms", "max_ms")}
    values[f"{name}_per_s"] = poured["chats_per_s"]
    return {**values, f"{name}_cpu_ms": cpu / poured["chats"] * 1000}
