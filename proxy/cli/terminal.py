"""What all commands share: the configuration that is meant, the store, and what goes to which stream."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from proxy.config import Config
    from proxy.store.keys import KeyStore

Result = TypeVar("Result")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration, a TOML file. Without it: the one that OLLAMA_PROXY_CONFIG names, else "
        "/etc/ollama-auth-proxy/config.toml.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def load_config(file: Path | None) -> Config:
    from proxy.config import ConfigError, load

    try:
        return load(file, os.environ)
    except ConfigError as fault:
        fail(str(fault), code=2)


def in_store(config: Config, action: Callable[[KeyStore], Awaitable[Result]]) -> Result:
    """What the action returns; where the store fails, the command has failed."""
    from proxy.store.errors import StoreError
    from proxy.store.keys import open_store

    async def run() -> Result:
        store = open_store(config.store.path)
        try:
            return await action(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as fault:
        fail(f"error: {fault}", code=1)


def show(result: str, *, when_lost: str = "") -> None:
    """Prints a result on stdout; ``when_lost`` says what to do where that is not possible."""
    try:
        print(result, flush=True)
    except OSError as fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter fails on the same bytes at its end
        lost = f"; {when_lost}" if when_lost else ""
        fail(f"error: stdout cannot be written: {fault.strerror}{lost}", code=1)


def say(text: str) -> None:
    """Prints on stderr."""
    print(text, file=sys.stderr)


def fail(text: str, *, code: int) -> NoReturn:
    say(text)
    raise typer.Exit(code)
