"""Reads the configuration again when its file, or a file that it names, has changed, or when told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from proxy.config.fault import ConfigError, Fault
from proxy.config.tables import Config

log = logging.getLogger("ollama_auth_proxy")

INTERVAL = 2.0
"""Seconds between two looks. A change is read when the next look finds no other, so that a certificate and
its key that are replaced one after the other are read as a pair: after 2 seconds, and 4 at the most."""

Signatures = dict[Path, tuple[int, int, int] | None]


def files_of(config: Config) -> list[Path]:
    """The files named in a configuration that are read whole. Files of issuers' keys follow themselves."""
    named = [config.tls.certificate, config.tls.private_key, config.tls.client_ca]
    if config.ops.token_file is not None:
        named.append(config.ops.token_file.path)
    named += [issuer.ca_file for issuer in config.auth.jwt]
    return [path for path in named if path is not None]


async def follow(
    file: Path,
    config: Config,
    load: Callable[[], Config],
    asked: asyncio.Event,
    on_change: Callable[[Config], None],
    on_fault: Callable[[ConfigError], None],
    first: Signatures | None = None,
) -> NoReturn:
    """Hands on each new configuration without a fault, and every fault of one that has some.

    A refused one is tried again at every look: what mends it may be a file that only it names. Its faults are
    told again when they are others, or when it was asked for.

    ``config`` is the one in force, read from ``file`` by ``load``, which raises ConfigError and may block.
    ``asked`` is set to have it read at once, changed or not. ``on_change`` may raise ConfigError too.
    ``first`` are the `signatures` from before the files were read; without them it is from now on.
    """
    seen = await asyncio.to_thread(signatures, [file, *files_of(config)])
    # A file that was not there is none that was read: the proxy has made its own certificate since.
    read = seen if first is None else {path: first.get(path) or seen[path] for path in seen}
    refused = ""
    while True:
        at_once = await _wait(asked)
        before, seen = seen, await asyncio.to_thread(signatures, [file, *files_of(config)])
        if not at_once and (seen != before or (seen == read and not refused)):
            continue
        read = seen
        try:
            new = await asyncio.to_thread(load)
            on_change(new)
        except ConfigError as fault:
            if at_once or str(fault) != refused:
                refused = str(fault)
                on_fault(fault)
        except Exception as fault:
            log.exception("a new configuration could not be taken over")
            wrong = f"the proxy failed to take it over: {type(fault).__name__}"
            on_fault(ConfigError((Fault(str(file), wrong, "restart the proxy"),)))
        else:
            config, refused = new, ""
            # Of files that were known before, what they were before they were read: they may change again.
            now = await asyncio.to_thread(signatures, [file, *files_of(config)])
            read = seen = {path: read.get(path, signature) for path, signature in now.items()}


def signatures(files: Iterable[Path]) -> Signatures:
    """What changes when one of the files does, or the target of a link to it; blocking."""
    return {file: _signature_of(file) for file in files}


def _signature_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


async def _wait(asked: asyncio.Event) -> bool:
    """Whether it was asked for, before the next look is due."""
    try:
        await asyncio.wait_for(asked.wait(), INTERVAL)
    except TimeoutError:
        return False
    asked.clear()
    return True
