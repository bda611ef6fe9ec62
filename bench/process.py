"""Child processes on a core of their own, ended by pid whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where `python -m proxy` and `python -m bench…` are found."""


class BenchError(Exception):
    """The benchmark cannot go on; the text says why."""


def cores() -> tuple[int, int]:
    """The core of the proxy, and the core of the load and the fake Ollama."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise BenchError(
            "the benchmark needs two cores: one for the proxy, one for the load and the fake Ollama"
        )
    return available[0], available[1]


def free_port() -> int:
    """A loopback port that nobody listens on now, for servers that cannot be asked which one they took."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int,
    output: Path | None = None,
    errors: Path | None = None,
    environment: Mapping[str, str] | None = None,
    talk: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` on `core` until the block ends; then SIGTERM, and SIGKILL to its session after 5 s.

    `talk` joins standard input and output by pipes and leaves standard error to the terminal;
    otherwise both go to the files, or nowhere.
    A session of its own keeps the terminal's Ctrl-C away from it: the order of ending is ours.
    """
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # inherited: no thread of the child ever runs elsewhere
    try:
        with open(output or os.devnull, "ab") as out, open(errors or os.devnull, "ab") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk else out,
                stderr=None if talk else err,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
    finally:
        os.sched_setaffinity(0, own)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str], what: str, errors: Path) -> None:
    """Poll until `ready()`; BenchError with the end of its error log when it ends first or takes 20 s."""
    deadline = time.monotonic() + 20
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "did not get ready" if process.poll() is None else f"ended with {process.returncode}"
            raise BenchError(f"{what} {state}: {last_lines(errors.read_text())}")
        time.sleep(0.02)


def last_lines(text: str) -> str:
    """The end of what a process had to say, where the reason stands."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-3:])
