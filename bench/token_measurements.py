"""How the figures of JWTs are taken: beside requests with a key, on one proxy, in turns."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from bench import procfs, tokens
from bench.measurements import SETTLE, Ground, Values, expect, in_turns, line_of, load_command
from bench.process import BenchError, running
from bench.proxies.site import Running

_WARM_UP = 100  # tokens


def cached(ground: Ground, proxy: Running) -> Values:
    """Small GETs with a JWT that has been checked before, and with a key."""
    (token,) = tokens.tokens("RS256", 1)
    key_us, token_us = in_turns(ground, proxy, [proxy.target.key, token])
    return {"key_us": key_us, "token_us": token_us, "ratio": token_us / key_us}


def first(ground: Ground, proxy: Running) -> Values:
    """Small GETs with a JWT each that has not been seen yet; less what those with a key take."""
    expect(200, proxy.target)
    count = ground.effort.tokens
    key = _cpu(ground, proxy, [proxy.target.key] * (count + _WARM_UP))
    values = {"key_us": key * 1e6}
    for algorithm in tokens.ALGORITHMS:
        taken = _cpu(ground, proxy, list(tokens.tokens(algorithm, count + _WARM_UP)))
        values[f"{algorithm.lower()}_ms"] = (taken - key) * 1e3
    return values


def _cpu(ground: Ground, proxy: Running, credentials: list[str]) -> float:
    """CPU seconds a request; the first ones do not count."""
    _ask(ground, proxy, credentials[:_WARM_UP])
    before = procfs.cpu_seconds(proxy.pid)
    _ask(ground, proxy, credentials[_WARM_UP:])
    time.sleep(SETTLE)
    return (procfs.cpu_seconds(proxy.pid) - before) / len(credentials[_WARM_UP:])


def _ask(ground: Ground, proxy: Running, credentials: list[str]) -> None:
    target = replace(proxy.target, key="")  # each request has its own
    with running(load_command("credentials", target), core=ground.load_core, talk=True) as process:
        assert process.stdin is not None
        process.stdin.write("\n".join(credentials))
        process.stdin.close()
        answered = json.loads(line_of(process, "credentials"))["requests"]
    if answered != len(credentials):
        raise BenchError(f"{answered} of {len(credentials)} requests were answered")
