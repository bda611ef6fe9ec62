"""`python -m bench`: measure, print the tables, and on request keep them in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from bench import document, machine, report
from bench.effort import QUICK, WHOLE, Effort
from bench.plan import Load, missing, selected
from bench.process import ROOT, BenchError
from bench.rounds import run

_DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """Exit code 0: measured; 1: something failed or a must is missed; 2: wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures the proxy beside its peers."
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of small loads: a first look in 2 minutes"
    )
    parser.add_argument(
        "--only", metavar="LOAD,…", default="", help="only these loads, such as small-get,streams"
    )
    parser.add_argument("--write", action="store_true", help="keep the tables in docs/benchmarks.md")
    given = parser.parse_args()
    if given.write and (given.quick or given.only):
        parser.error("--write keeps a whole run only: leave out --quick and --only")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that children and files go
    try:
        loads = selected([name for name in given.only.split(",") if name])
        text, faults, missed = _measured(QUICK if given.quick else WHOLE, loads)
        print(text)
        if faults and given.write:
            print("bench: not written, since not all was measured", file=sys.stderr)
        elif given.write:
            _DOCUMENT.write_text(document.replaced(_DOCUMENT.read_text(), text))
    except (BenchError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 1 if faults or missed else 0


def _measured(effort: Effort, loads: list[Load]) -> tuple[str, list[str], list[str]]:
    """The tables with what is needed to read them; what failed; which figures stay short of their must."""
    busy = os.getloadavg()[0]
    stat = Path("/proc/stat")
    stolen, total = machine.stolen_and_total(stat.read_text())
    started = time.monotonic()
    samples, faults = run(effort, loads, missing())
    stolen_after, total_after = machine.stolen_and_total(stat.read_text())
    steal = (stolen_after - stolen) / max(1, total_after - total)
    run_line = (
        f"`{' '.join(['python -m bench', *sys.argv[1:]])}`: {effort.rounds} rounds in"
        f" {time.monotonic() - started:.0f} s; load average before it {busy:.2f}, steal {steal:.1%}"
    )
    lines = [run_line, *machine.describe(), *(f"FAILED: {fault}" for fault in faults)]
    facts = "\n".join(f"- {line}" for line in lines)
    text = f"{report.promised(samples)}\n\n{report.beside(samples)}\n\n{facts}"
    return text, faults, report.missed(samples)


if __name__ == "__main__":
    sys.exit(main())
