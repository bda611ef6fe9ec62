"""Chats of 10 MiB with two keys that take turns: how long from the first byte to the end of the answer."""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time

from bench.load import chats
from bench.load.target import Target, answer, parser


def post(sock: socket.socket, request: bytes) -> float:
    """Seconds for one chat; ConnectionError on anything but a whole 200."""
    started = time.perf_counter()
    sock.sendall(request)
    response = sock.recv(65_536)
    while response.startswith(b"HTTP/1.1 200") and not response.endswith(b"}"):
        received = sock.recv(65_536)
        response = response + received if received else b""
    if not response.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"a chat was answered by {response[:12]!r}")
    return time.perf_counter() - started


def run(target: Target, guarded: Target, body: bytes, times: int) -> None:
    """Prints the median of both, and how long the first one took for which a proxy may have to start more."""
    with target.connect() as free_sock, guarded.connect() as guarded_sock:
        ways = [
            (sock, to.head("POST", chats.PATH, len(body)) + body, list[float]())
            for sock, to in ((free_sock, target), (guarded_sock, guarded))
        ]
        for _ in range(1 + times):
            for sock, request, taken in ways:
                taken.append(post(sock, request) * 1000)
    free_ms, guarded_ms = (statistics.median(taken[1:]) for _, _, taken in ways)
    answer(free_ms=free_ms, guarded_ms=guarded_ms, first_ms=ways[1][2][0])


def main() -> None:
    arguments = parser("Chats of 10 MiB.")
    arguments.add_argument("guarded", type=lambda text: Target(**json.loads(text)))
    arguments.add_argument("kind", choices=["picture", "text", "numbers"])
    arguments.add_argument("--times", type=int, default=9)
    given = arguments.parse_args()
    try:
        run(given.target, given.guarded, chats.large(given.kind), given.times)
    except (ConnectionError, TimeoutError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
