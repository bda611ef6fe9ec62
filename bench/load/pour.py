"""Chats of 10 MiB on some connections, without a pause, until it is told to stop.

Prints `pouring` when each connection has had an answer, then waits for a line.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from bench.load import chats
from bench.load.large_chats import post
from bench.load.target import Target, answer, parser

CONNECTIONS = 4


def run(target: Target, body: bytes) -> None:
    """Prints how many chats were answered, in all and a second."""
    request = target.head("POST", chats.PATH, len(body)) + body
    started, stopped = threading.Barrier(CONNECTIONS + 1, timeout=60), threading.Event()
    faults: list[Exception] = []
    counts = [0] * CONNECTIONS

    def pour(number: int) -> None:
        try:
            with target.connect() as sock:
                post(sock, request)
                started.wait()
                while not stopped.is_set():
                    post(sock, request)
                    counts[number] += 1
        except (OSError, threading.BrokenBarrierError) as fault:
            faults.append(fault)
            started.abort()

    threads = [threading.Thread(target=pour, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        started.wait()
        began = time.perf_counter()
        print("pouring", flush=True)
        sys.stdin.readline()
    except threading.BrokenBarrierError:
        pass
    stopped.set()
    for thread in threads:
        thread.join()
    if faults:
        raise ConnectionError(str(faults[0]))
    answer(chats=sum(counts), chats_per_s=sum(counts) / (time.perf_counter() - began))


def main() -> None:
    given = parser("Chats of 10 MiB without a pause.").parse_args()
    os.nice(19)  # else the fake Ollama and the neighbour, on the same core, wait for us and not for the proxy
    try:
        run(given.target, chats.large("picture"))
    except ConnectionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
