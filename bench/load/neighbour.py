"""Small GETs at a steady rate on one connection, while something else goes on: how long they wait.

A time counts from when the GET was due, so that those that a slow one holds up wait as well.
"""

from __future__ import annotations

import sys
import time

from bench.load.latency import percentile, round_trip
from bench.load.target import Target, answer, parser

RATE = 200
"""GETs a second."""


def run(target: Target, seconds: float) -> None:
    """Prints p50, p99 and the longest time, in milliseconds."""
    taken: list[float] = []
    request = target.head("GET", "/api/version")
    with target.connect() as sock:
        round_trip(sock, request)
        due = time.perf_counter()
        for _ in range(int(RATE * seconds)):
            due += 1 / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            round_trip(sock, request)
            taken.append((time.perf_counter() - due) * 1000)
    answer(p50_ms=percentile(taken, 50), p99_ms=percentile(taken, 99), max_ms=max(taken))


def main() -> None:
    arguments = parser("Small GETs at a steady rate.")
    arguments.add_argument("--seconds", type=float, default=4)
    given = arguments.parse_args()
    try:
        run(given.target, given.seconds)
    except ConnectionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
