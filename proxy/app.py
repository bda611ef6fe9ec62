"""The composition root: prepares what a replica needs of this machine, and runs it to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping
from typing import Any

import uvloop

from proxy.allocator import keep_freed_memory
from proxy.config import Config
from proxy.config.follow import files_of, signatures
from proxy.config.tables import Listen, Ops
from proxy.config.values import Address
from proxy.observe import events
from proxy.observe.events import log
from proxy.observe.log_stream import LogStream
from proxy.replica import Ready, Replica, Source, Stop, tls_context, unusable
from proxy.server.activation import ActivationError, sockets
from proxy.server.listener import bind
from proxy.store.errors import StoreError
from proxy.store.follow import load
from proxy.store.schema import prepare
from proxy.tls import ForeignFileError


class StartError(Exception):
    """The proxy cannot start with this configuration here; the text names the fault and the fix."""


def serve(config: Config, source: Source) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code, see `run`."""
    return run_loop(run(config, source))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` in an event loop that is set up for serving."""
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def run(
    config: Config,
    source: Source | None = None,
    ready: Ready | None = None,
    listen_option: str = "listen.address",
) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP, or a change of ``source``, has the configuration read again.

    ``listen_option`` is what a fault of the public address names. Returns 0 when every stream ended by
    itself, 1 when some were cut or the start failed, 2 when the configuration cannot be used here (a port
    that is taken, for example).
    """
    stop = _stop_on_signals()
    try:
        passed = _passed_sockets()
        addresses = {name: Address(*sock.getsockname()[:2]) for name, sock in passed.items()}
        config = _at(config, addresses)
        public, private = _listening_sockets(config, listen_option, passed)
        try:
            tls = tls_context(config)
        except (OSError, ForeignFileError) as error:
            raise StartError(f"tls: {unusable(config, error)}") from None
    except StartError as fault:
        print(fault, file=sys.stderr)
        return 2
    try:
        prepare(config.store.path)
        keys = await load(config.store.path)
    except StoreError as fault:
        print(fault, file=sys.stderr)
        return 1
    stream = LogStream(sys.stdout.fileno())
    events.configure(stream, config.log.format, config.log.level)
    if source is not None:
        load_again, first = source.load, source.first
        if config.tls.mode == "self-signed":  # its files may have been made just now
            first = first | signatures(files_of(config))
        source = source._replace(load=lambda: _at(load_again(), addresses), first=first)
    try:
        if passed:
            log.info(
                "the sockets %s were opened for the proxy: their addresses in the configuration do not count",
                " and ".join(passed),
            )
        return await Replica(config, public, private, tls, stream, keys).run(stop, source, ready)
    finally:
        logging.getLogger().handlers.clear()
        stream.close()


def _stop_on_signals() -> Stop:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    loop.add_signal_handler(signal.SIGHUP, stop.reload.set)
    return stop


def _passed_sockets() -> dict[str, socket.socket]:
    try:
        return sockets(os.environ, os.getpid())
    except ActivationError as fault:
        raise StartError(str(fault)) from None


def _at(config: Config, addresses: Mapping[str, Address]) -> Config:
    """The configuration with the addresses of sockets that were passed to the process."""
    tables: dict[str, Listen | Ops] = {}
    if "public" in addresses:
        tables["listen"] = config.listen.model_copy(update={"address": addresses["public"]})
    if "ops" in addresses:
        tables["ops"] = config.ops.model_copy(update={"address": addresses["ops"]})
    return config.model_copy(update=tables)


def _listening_sockets(
    config: Config, listen_option: str, passed: Mapping[str, socket.socket]
) -> tuple[socket.socket, socket.socket]:
    """The public and the private one: those that were passed to the process, else bound here."""
    found = dict(passed)
    faults: list[str] = []
    for name, option, address in (
        ("public", listen_option, config.listen.address),
        ("ops", "ops.address", config.ops.address),
    ):
        if name in found:
            continue
        try:
            found[name] = bind(address.host, address.port)
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
            faults.append(
                f"{option}: cannot listen on {address}: {reason};"
                " stop what listens there or write another address"
            )
    if faults:
        for sock in found.values():
            sock.close()
        raise StartError("\n".join(faults))
    return found["public"], found["ops"]
