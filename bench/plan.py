"""Which load is put on which proxy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench import guard_measurements as guard
from bench import measurements as take
from bench import token_measurements as token
from bench.load import small_requests
from bench.process import BenchError
from bench.proxies import caddy, nginx
from bench.proxies.naive import naive
from bench.proxies.ours import ours
from bench.proxies.site import Running, Site

STARTS: dict[str, Callable[[Site], AbstractContextManager[Running]]] = {
    "ours": ours,
    "nginx": nginx.nginx,
    "Caddy": caddy.caddy,
    "FastAPI + httpx": naive,
}
_PROXIES = ("ours", "nginx", "Caddy")


@dataclass(frozen=True)
class Load:
    """A row of the plan; `once` is who is measured in the first round only."""

    name: str
    measure: take.Measure
    tls: bool
    who: tuple[str, ...] = _PROXIES
    once: tuple[str, ...] = ("direct",)


PLAN = (
    Load("start", take.after_start, tls=True, once=()),
    Load("small-get", take.small_get, tls=False, who=(*_PROXIES, "FastAPI + httpx")),
    Load("small-get-tls", take.small_get, tls=True),
    Load("bad-key", take.bad_key, tls=False, once=()),
    Load("garbage-key", take.garbage_key, tls=False, who=("ours", "Caddy"), once=()),
    Load("streams", take.streams, tls=False),
    Load("streams-tls", take.streams, tls=True),
    Load("upload", take.upload, tls=False),
    Load("download", take.download, tls=False),
    Load("upload-tls", take.upload_tls, tls=True, who=("ours",), once=("nginx", "Caddy", "direct")),
    Load("download-tls", take.download_tls, tls=True, who=("ours",), once=("nginx", "Caddy", "direct")),
    Load("latency", take.latency, tls=False, once=()),
    Load("latency-tls", take.latency, tls=True, who=("ours",), once=("nginx", "Caddy")),
    Load("cached-jwt", token.cached, tls=False, who=("ours",), once=()),
    Load("first-jwt", token.first, tls=False, who=("ours",), once=()),
    Load("small-guarded", guard.small, tls=False, who=("ours",), once=()),
    Load("large-guarded", guard.large, tls=False, who=("ours",), once=()),
    Load("neighbour", guard.neighbour, tls=False, who=("ours",), once=("nginx", "direct")),
)


def missing() -> set[str]:
    """Proxies that are not installed here."""
    return {name for name, found in (("nginx", nginx.program()), ("Caddy", caddy.program())) if not found}


def selected(only: list[str]) -> list[Load]:
    """The loads named, `small-get` meaning `small-get-tls` too; without a name all. BenchError: unknown."""
    unknown = [name for name in only if not any(_named(load, name) for load in PLAN)]
    if unknown:
        names = ", ".join(load.name for load in PLAN)
        raise BenchError(f"no such load: {', '.join(unknown)}; there are {names}")
    chosen = [load for load in PLAN if not only or any(_named(load, name) for name in only)]
    if small_requests.wrk() is None:
        by_wrk = (take.small_get, take.bad_key, take.garbage_key, token.cached, guard.small)
        chosen = [load for load in chosen if load.measure not in by_wrk]
    return chosen


def _named(load: Load, name: str) -> bool:
    return load.name in (name, name + "-tls")
