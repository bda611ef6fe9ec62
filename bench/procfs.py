"""CPU time and memory of a process and its children, from Linux's /proc (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
"""CPU time comes in ticks of 10 ms on most kernels; loads are long enough for hundreds of them."""


def cpu_ticks(stat: str) -> int:
    """utime + stime of one line of /proc/PID/stat; the name in brackets may hold blanks and brackets."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def kibibytes(text: str, name: str) -> int:
    """The value of a `Name:   123 kB` line, as /proc/PID/status and smaps_rollup have it."""
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)


def children(pid: int) -> list[int]:
    """Live children of all threads of the process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for child in children(pid):
        found += tree(child)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time spent so far by the process, its threads and its live descendants."""
    ticks = sum(cpu_ticks(Path(f"/proc/{member}/stat").read_text()) for member in tree(pid))
    return ticks / TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Exact resident memory of the tree; the kernel walks the page tables for it, so not for a loop."""
    texts = (Path(f"/proc/{member}/smaps_rollup").read_text() for member in tree(pid))
    return sum(kibibytes(text, "Rss") for text in texts) * 1024


def resident_bytes_roughly(pid: int) -> int:
    """The same from the kernel's counters: cheap enough to sample, a few hundred KiB off."""
    texts = (Path(f"/proc/{member}/status").read_text() for member in tree(pid))
    return sum(kibibytes(text, "VmRSS") for text in texts) * 1024
