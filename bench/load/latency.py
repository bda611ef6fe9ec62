"""Latency at low load: one connection straight to the fake Ollama, one through the proxy, taking turns."""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time

from bench.load.target import Target, answer, parser


def round_trip(sock: socket.socket, request: bytes) -> float:
    """Seconds from sending a small GET to the end of its answer, which fits one segment."""
    started = time.perf_counter()
    sock.sendall(request)
    response = sock.recv(65_536)
    while not response.endswith(b"}"):
        received = sock.recv(65_536)
        if not received:
            raise ConnectionError("the connection was closed")
        response += received
    seconds = time.perf_counter() - started
    if not response.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"a request was answered by {response[:12]!r}")
    return seconds


def percentile(values: list[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def run(target: Target, direct: Target, rate: int, seconds: float) -> None:
    """Prints p50 and p99 of both ways, in milliseconds."""
    ways = [(way.connect(), way.head("GET", "/api/version"), list[float]()) for way in (direct, target)]
    warm_up, pause = 50, 1 / rate / len(ways)
    due = time.perf_counter()
    for count in range(warm_up + int(rate * seconds)):
        for sock, request, taken in ways:
            due += pause
            time.sleep(max(0.0, due - time.perf_counter()))
            taken_now = round_trip(sock, request)
            if count >= warm_up:
                taken.append(taken_now)
    straight, through = (taken for _, _, taken in ways)
    figures = {
        f"{name}_p{percent}_ms": percentile(values, percent) * 1000
        for name, values in (("direct", straight), ("proxy", through))
        for percent in (50, 99)
    }
    answer(**figures)
    for sock, _, _ in ways:
        sock.close()


def main() -> None:
    arguments = parser("Latency at low load.")
    arguments.add_argument("direct", type=lambda text: Target(**json.loads(text)))
    arguments.add_argument("--rate", type=int, default=200, help="requests a second on each way")
    arguments.add_argument("--seconds", type=float, default=4)
    given = arguments.parse_args()
    try:
        run(given.target, given.direct, given.rate, given.seconds)
    except ConnectionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
