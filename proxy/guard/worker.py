"""The process that parses large bodies, so that they do not hold up everybody else's requests.

The parser holds the interpreter for as long as it runs, tens of milliseconds for 10 MiB of text and more for
millions of small values, so a thread would not help. `serve` is the process itself; its memory is limited,
since small values take many times their length. It ends with its standard input.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from proxy.errors import ProxyError
from proxy.guard.judge import Asked, judge
from proxy.policy.body import Facts
from proxy.policy.model_names import ModelName
from proxy.policy.routes import ROUTES

NICE = 5
"""The event loop goes first where both want the same processor."""


MOST_COMMAS = 8_000_000
"""In one body; a few seconds of parsing. Source code has one for some twenty bytes, other text far fewer."""


def question(asked: Asked, size: int) -> bytes:
    """What precedes a body: one line of JSON."""
    content_type = None if asked.content_type is None else asked.content_type.decode("latin-1")
    return json.dumps([ROUTES.index(asked.route), content_type, size]).encode() + b"\n"


def encode(facts: Facts) -> list[Any]:
    return [
        facts.names,
        facts.remote,
        facts.web_tools,
        facts.insecure,
        facts.debug,
        facts.keep_alive,
        dict(facts.options),
    ]


def decode(answer: bytes) -> Facts:
    """The facts in an answer.

    Raises ProxyError where the answer is a refusal, ValueError where it is none.
    """
    kind, found = json.loads(answer)
    if kind == "refused":
        raise ProxyError(*found)
    names, *rest = found
    return Facts(tuple(ModelName(*name) for name in names), *rest)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one body after the other, until there are no more."""
    while line := requests.readline():
        index, content_type, size = json.loads(line)
        asked = Asked(ROUTES[index], None if content_type is None else content_type.encode("latin-1"))
        body = requests.read(size)
        try:
            answers.write(_answer(asked, body))
        except MemoryError:
            answers.write(_refusal(too_much()))
        answers.flush()


def _answer(asked: Asked, body: bytes) -> bytes:
    if len(body) > 2 * MOST_COMMAS and body.count(b",") > MOST_COMMAS:  # each stands behind a value
        return _refusal(too_much())
    try:
        return json.dumps(["facts", encode(judge(asked, [body]))]).encode() + b"\n"
    except ProxyError as error:
        return _refusal(error)


def _refusal(error: ProxyError) -> bytes:
    return json.dumps(["refused", [error.code, error.message]]).encode() + b"\n"


def too_much() -> ProxyError:
    return ProxyError(
        "body_too_large", "the body takes too long or too much memory to read: send less, in fewer values"
    )


def main() -> None:
    memory = int(sys.argv[1])
    os.nice(NICE)
    gc.disable()  # what is parsed has no cycles, and looking for some takes a fifth of the time
    with suppress(OSError):  # where memory is short, this process goes and not the proxy
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # bodies are not for the disk
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
