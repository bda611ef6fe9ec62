"""Round after round, each load on each proxy in turn, every time freshly started.

Taking turns spreads the moods of the machine over all; a fresh start makes memory comparable.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.certificate import make_certificate, make_client_ca
from bench.effort import Effort
from bench.load.target import Target
from bench.measurements import Ground, Values
from bench.plan import STARTS, Load
from bench.process import BenchError, cores, running
from bench.proxies.site import Running, Site

Samples = dict[tuple[str, str], list[Values]]
"""By load and by who was measured: the values of each round."""


@dataclass(frozen=True)
class Upstream:
    """The fake Ollama of the run."""

    pid: int
    plain: Target
    tls: Target


def run(effort: Effort, loads: list[Load], absent: set[str]) -> tuple[Samples, list[str]]:
    """Measure all loads on all proxies but the absent; returns the samples, and what went wrong."""
    proxy_core, load_core = cores()
    samples: Samples = {}
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        certificate, private_key = make_certificate(Path(name))
        files = certificate, private_key, make_client_ca(Path(name))
        with _upstream(effort, load_core, certificate, private_key) as upstream:
            ground = Ground(effort, load_core, upstream.plain)
            for number in range(effort.rounds):
                for load in loads:
                    for who in (*load.who, *(load.once if number == 0 else ())):
                        if who in absent:
                            continue
                        _say(f"round {number + 1} of {effort.rounds}: {load.name}: {who}: ", end="")
                        try:
                            with _started(who, load, upstream, proxy_core, *files) as proxy:
                                values = load.measure(ground, proxy)
                        except BenchError as error:
                            faults.append(f"{load.name}, {who}: {error}")
                            _say(f"FAILED: {error}")
                        else:
                            samples.setdefault((load.name, who), []).append(values)
                            _say(", ".join(f"{key} {value:.4g}" for key, value in values.items()))
    return samples, faults


@contextmanager
def _started(who: str, load: Load, upstream: Upstream, core: int, *files: Path) -> Iterator[Running]:
    if who == "direct":
        yield Running(upstream.pid, upstream.tls if load.tls else upstream.plain)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        site = Site(Path(name), core, upstream.plain.port, load.tls, *files)
        with STARTS[who](site) as proxy:
            yield proxy


@contextmanager
def _upstream(effort: Effort, core: int, certificate: Path, private_key: Path) -> Iterator[Upstream]:
    command = [
        sys.executable,
        "-m",
        "bench.upstream",
        "--chunks",
        str(effort.chunks),
        "--pause",
        str(effort.pause),
    ]
    command += ["--certificate", str(certificate), "--private-key", str(private_key)]
    with running(command, core=core, talk=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise BenchError("the fake Ollama did not start")
        ports: dict[str, int] = json.loads(line)
        plain, tls = Target(ports["plain"], False, "none"), Target(ports["tls"], True, "none")
        yield Upstream(process.pid, plain, tls)


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)
