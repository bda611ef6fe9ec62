"""Whether the limit on open files is enough for listen.max_connections. `judge` and `parse` are pure."""

from __future__ import annotations

import re
import resource

from proxy.doctor import processes
from proxy.doctor.findings import Finding, note, ok, warning

SPARE = 64
"""Open files beside the connections, as 'serve' counts: listeners, store, log."""


def look(pid: int | None) -> int | None:
    """The limit of the running proxy, else the one up to which a proxy could raise it that we started."""
    if pid is None:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        return parse((processes.PROC / str(pid) / "limits").read_text("ascii"))
    except OSError:
        return None


def parse(text: str) -> int | None:
    """The soft limit in proc(5), /proc/PID/limits."""
    match = re.search(r"^Max open files +(\d+|unlimited)", text, re.MULTILINE)
    if match is None:
        return None
    return resource.RLIM_INFINITY if match[1] == "unlimited" else int(match[1])


def judge(limit: int | None, max_connections: int, *, running: bool) -> Finding:
    wanted = 2 * max_connections + SPARE
    whose = "the running proxy" if running else "what is started from here"
    if limit is None:
        return note("open_files_unknown", "the limit on open files of the running proxy cannot be read")
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return ok("open_files", f"{whose} may open enough files for listen.max_connections")
    return warning(
        "open_files_limited",
        f"{whose} may open {limit} files, and listen.max_connections = {max_connections} needs {wanted}",
        f"raise LimitNOFILE= of the service (ulimit -n) to {wanted}, or lower listen.max_connections",
    )
