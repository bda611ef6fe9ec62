"""Chats of 10 MiB, one after the other: how long each takes from its first byte to the end of its answer."""

from __future__ import annotations

import socket
import statistics
import sys
import time

from bench.load import chats
from bench.load.target import Target, answer, parser


def post(sock: socket.socket, request: bytes) -> float:
    """Seconds for one; ConnectionError on anything but a whole 200, which fits one segment."""
    started = time.perf_counter()
    sock.sendall(request)
    response = sock.recv(65_536)
    seconds = time.perf_counter() - started
    if not response.startswith(b"HTTP/1.1 200") or not response.endswith(b"}"):
        raise ConnectionError(f"a chat was answered by {response[:12]!r}")
    return seconds


def run(target: Target, body: bytes, times: int) -> None:
    """Prints the first time, in which whatever a proxy needs for it starts, and the median of the others."""
    request = target.head("POST", chats.PATH, len(body)) + body
    with target.connect() as sock:
        first = post(sock, request)
        taken = [post(sock, request) for _ in range(times)]
    answer(first_ms=first * 1000, median_ms=statistics.median(taken) * 1000)


def main() -> None:
    arguments = parser("Chats of 10 MiB.")
    arguments.add_argument("kind", choices=["picture", "text", "numbers"])
    arguments.add_argument("--times", type=int, default=7)
    given = arguments.parse_args()
    try:
        run(given.target, chats.large(given.kind), given.times)
    except (ConnectionError, TimeoutError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
