"""Memory, descriptors and threads of the proxy, sampled; from Linux's /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.procfs import kibibytes, tree

_STATES = {"01": "established", "04": "fin-wait-1", "05": "fin-wait-2", "08": "close-wait", "0A": "listening"}
"""Of TCP, include/net/tcp_states.h."""


class Sample(NamedTuple):
    """``at`` in seconds since the load began; memory in KiB, ``tree_rss`` with that of the children."""

    at: float
    rss: int
    tree_rss: int
    descriptors: int
    threads: int


def take(pid: int, at: float) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    rss = kibibytes(status, "VmRSS")
    more = 0
    for child in tree(pid)[1:]:
        try:
            more += kibibytes(Path(f"/proc/{child}/status").read_text(), "VmRSS")
        except (OSError, KeyError):
            continue  # it has ended meanwhile
    return Sample(at, rss, rss + more, descriptors(pid), int(_line(status, "Threads")))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def named_descriptors(pid: int, ports: Mapping[int, str]) -> list[str]:
    """What each is open on, sorted; a TCP socket with its state and what its ``ports`` are called."""
    sockets = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_, inode = line.split()[:10]
        ends = (ports.get(int(end.partition(":")[2], 16), "") for end in (local, remote))
        sockets[inode] = " ".join(filter(None, ("socket", *ends, _STATES.get(state, state))))
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{name}").partition(":[")
        except OSError:
            continue
        found.append(sockets.get(inode.rstrip("]"), kind) if kind == "socket" else kind)
    return sorted(found)


def between(samples: Sequence[Sample], start: float, end: float) -> list[Sample]:
    return [sample for sample in samples if start <= sample.at < end]


def middle(samples: Sequence[Sample], name: str) -> float:
    """The median of one member."""
    return float(median(getattr(sample, name) for sample in samples))


def slope(samples: Sequence[Sample]) -> float:
    """KiB of RSS a minute, by least squares."""
    count = len(samples)
    if count < 2:
        return 0.0
    at, rss = sum(s.at for s in samples) / count, sum(s.rss for s in samples) / count
    spread = sum((s.at - at) ** 2 for s in samples)
    return 60 * sum((s.at - at) * (s.rss - rss) for s in samples) / spread if spread else 0.0


def _line(status: str, name: str) -> str:
    return next(line for line in status.splitlines() if line.startswith(name + ":")).split()[1]
