"""`python -m bench.soak`: put minutes of mixed load on the real program and settle the account."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.machine import cpu_model
from bench.process import ROOT, BenchError
from bench.soak.report import missed, report
from bench.soak.run import Plan, soak

_DOCUMENT = ROOT / "docs" / "soak.md"
_MARK = "<!-- written by `python -m bench.soak --write` from here on -->\n"


def main() -> int:
    """Exit code 0: all is kept; 1: a must is missed or the account differs; 2: it could not be run."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long the load lasts")
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--directory", type=Path, help="keep the proxy's files there; an empty directory")
    parser.add_argument("--write", action="store_true", help="keep the figures in docs/soak.md")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that children and files go
    seconds = given.minutes * 60
    plan = Plan(
        seconds,
        given.clients,
        pause=0.8,
        warm_up=min(120.0, seconds / 3),
        every=min(60.0, max(20.0, seconds / 4)),
    )
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"soak: {time.monotonic() - began:5.0f} s: {text}", file=sys.stderr, flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
            outcome = uvloop.run(soak(plan, given.directory or Path(temporary), say))
    except BenchError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    text = f"{report(outcome)}\n\n{_machine()}"
    print(text)
    if given.write:
        before, mark, _ = _DOCUMENT.read_text().partition(_MARK)
        _DOCUMENT.write_text(f"{before}{mark or _MARK}\n{text}\n")
    return 1 if outcome.mismatches or missed(outcome) else 0


def _machine() -> str:
    model = cpu_model(Path("/proc/cpuinfo").read_text())
    now = datetime.datetime.now(datetime.UTC)
    command = " ".join(["python -m bench.soak", *sys.argv[1:]])
    return (
        f"- `{command}`, {now:%Y-%m-%d %H:%M} UTC\n"
        f"- {model}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main())
