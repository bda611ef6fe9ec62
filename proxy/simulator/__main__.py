"""`python -m proxy.simulator`: the simulator alone, in place of an Ollama."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop

from proxy.simulator.server import start


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m proxy.simulator", description="Answers like Ollama, without a model."
    )
    parser.add_argument("--listen", default="127.0.0.1:11434", metavar="HOST:PORT", type=_address)
    parser.add_argument("--tokens-per-second", default=20.0, metavar="N", type=_positive)
    parser.add_argument(
        "--load-seconds", default=3.0, metavar="N", type=_positive, help="cold start of the model `slow`"
    )
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        host, port = arguments.listen
        return runner.run(_serve(host, port, arguments.tokens_per_second, arguments.load_seconds))


async def _serve(host: str, port: int, tokens_per_second: float, load_seconds: float) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        simulator = await start(host, port, tokens_per_second, load_seconds)
    except OSError as error:
        reason = error.strerror or error
        print(
            f"Cannot listen on {host}:{port}: {reason}. Name another address with --listen.", file=sys.stderr
        )
        return 1
    print(
        f"This is the simulator of ollama-auth-proxy, not Ollama, and there is no model behind it.\n"
        f"{simulator.url} answers every prompt with one fixed text, {tokens_per_second:g} tokens a second.\n"
        f"Models: simulator, smollm2:135m, slow (loads for {load_seconds:g} s), error-midstream (breaks).\n"
        f"Counters: {simulator.url}/simulator/state. Ctrl-C ends it.",
        file=sys.stderr,
        flush=True,
    )
    await ended.wait()
    await simulator.stop()
    return 0


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:11434")
    return host.strip("[]"), int(port)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
