"""What Ollama writes of prompts, as its own environment says. `judge` is pure.

Of the environment of a process, which holds secrets, two variables are looked at and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from proxy.doctor import processes
from proxy.doctor.findings import Finding, note, ok, warning

BODIES, LEVEL = "OLLAMA_DEBUG_LOG_REQUESTS", "OLLAMA_DEBUG"
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_QUOTES = " \t\n\r\v\f'\""


class Environment(NamedTuple):
    """``bodies`` says that requests are written to files; ``level`` is 1 for debug, 2 for trace."""

    bodies: bool
    level: int


def look(port: int) -> Environment | None:
    """Of the Ollama that listens on the port, else of any on this machine; None where none can be read."""
    mine = [pid for pid in processes.holders(processes.listening(port)) if _is_ollama(pid)]
    for pid in mine or [pid for pid in processes.pids() if _is_ollama(pid)]:
        try:
            content = (processes.PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        return parse(content)
    return None


def _is_ollama(pid: int) -> bool:
    command = processes.command_of(pid)
    return len(command) > 1 and os.path.basename(command[0]) == "ollama" and command[1] in ("serve", "start")


def parse(content: bytes) -> Environment:
    """Reads the two as Ollama does (envconfig.Var, Bool and LogLevel)."""
    values = dict(line.split(b"=", 1) for line in content.split(b"\0") if b"=" in line)
    bodies, level = (
        values.get(name.encode(), b"").decode("latin-1").strip(_QUOTES) for name in (BODIES, LEVEL)
    )
    return Environment(bool(bodies) and bodies not in _FALSE, 1 if level in _TRUE else _number(level))


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def judge(seen: Environment | None) -> Iterator[Finding]:
    if seen is None:
        yield note(
            "ollama_log_unknown",
            f"whether Ollama writes prompts to its log cannot be told: its environment ({BODIES}, {LEVEL}) "
            "cannot be read from here",
            "ask as root on the machine of Ollama, or look there: systemctl show ollama -p Environment",
        )
        return
    if seen.bodies:
        yield warning(
            "ollama_logs_bodies",
            f"Ollama writes the bodies of all requests to files, as {BODIES} is on",
            f"start it without {BODIES}, and delete what it wrote: its log names the folder",
        )
    if seen.level >= 2:
        yield warning(
            "ollama_logs_prompts",
            f"Ollama writes prompts to its log, as {LEVEL} is 2 or more",
            f"start it without {LEVEL}, and delete its log",
        )
    elif seen.level == 1:
        yield note(
            "ollama_debug",
            f"{LEVEL} is on: Ollama's log is long, though without prompts",
            f"start Ollama without {LEVEL} when you have seen enough",
        )
    if not seen.bodies and seen.level < 1:
        yield ok("ollama_log", "Ollama writes no prompts to its log")
