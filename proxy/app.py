"""The composition root: the only place that builds the parts and joins them, and runs them to their end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import uvloop
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from proxy.allocator import keep_freed_memory
from proxy.config import Config
from proxy.gateway import Gateway
from proxy.guard.guards import Guards
from proxy.identity.authenticator import Authenticator, Tokens
from proxy.identity.failures import Failures
from proxy.observe import events
from proxy.observe.access_log import AccessLog
from proxy.observe.events import log
from proxy.observe.log_stream import LogStream
from proxy.observe.metrics import IssuerKeysState, Metrics
from proxy.ops.health import health_routes
from proxy.ops.listener import OpsListener
from proxy.ops.metrics import metrics_routes
from proxy.ops.readiness import Readiness
from proxy.policy.access import Policy
from proxy.server.listener import Listener, bind, raise_open_files
from proxy.server.shared import Shared
from proxy.store.errors import StoreError
from proxy.store.follow import follow, load
from proxy.store.last_used import write_last_used
from proxy.store.schema import prepare
from proxy.tls import ForeignFileError, certificate_expiry, ensure_self_signed, server_context
from proxy.upstream.pool import Pool
from proxy.upstream.probe import probe_forever

if TYPE_CHECKING:
    from proxy.identity.issuer_keys import IssuerKeys

CERTIFICATE_CHECK = 3600.0
"""Seconds between two looks at how long a self-signed certificate still lasts."""

LAST_USED_INTERVAL = 5.0
"""Seconds for which the times of keys' last use are collected before they are written."""

SPARE_FILES = 64
"""Open files beside the connections: listeners, store, log."""

Ready = Callable[[int, int], Awaitable[None]]
"""Told, with the public and the ops port, when the proxy serves."""


class StartError(Exception):
    """The proxy cannot start with this configuration here; the text names the fault and the fix."""


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code, see `run`."""
    return run_loop(run(config))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` in an event loop that is set up for serving."""
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def run(config: Config, ready: Ready | None = None, listen_option: str = "listen.address") -> int:
    """Serve until SIGTERM or SIGINT. ``listen_option`` is what a fault of the public address names.

    Returns 0 when every stream ended by itself, 1 when some were cut or the start failed, 2 when the
    configuration cannot be used here (a port that is taken, for example).
    """
    stop = _Signals()
    try:
        public, private = _bind(config, listen_option)
        tls = _tls(config)
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
    events.configure(stream, config.log.format)
    try:
        proxy = _Proxy(config, public, private, tls, stream)
        proxy.gateway.replace_keys(keys)
        return await proxy.run(stop, ready)
    finally:
        logging.getLogger().handlers.clear()
        stream.close()


class _Signals:
    """The first SIGTERM or SIGINT asks to drain, the second to end at once."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.end = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(
            signal.SIGHUP, log.warning, "SIGHUP: this version does not reload; restart it to apply a change"
        )

    def _on_signal(self) -> None:
        (self.end if self.drain.is_set() else self.drain).set()


def _bind(config: Config, listen_option: str) -> tuple[socket.socket, socket.socket]:
    faults: list[str] = []
    sockets: list[socket.socket] = []
    for option, address in ((listen_option, config.listen.address), ("ops.address", config.ops.address)):
        try:
            sockets.append(bind(address.host, address.port))
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
            faults.append(
                f"{option}: cannot listen on {address}: {reason};"
                " stop what listens there or write another address"
            )
    if faults:
        for sock in sockets:
            sock.close()
        raise StartError("\n".join(faults))
    return sockets[0], sockets[1]


def _tls(config: Config) -> ssl.SSLContext | None:
    certificate, private_key = config.tls.certificate, config.tls.private_key
    if certificate is None or private_key is None:
        return None
    try:
        if config.tls.mode == "self-signed":
            ensure_self_signed(certificate, private_key, datetime.now(UTC))
        return server_context(
            certificate, private_key, config.tls.client_ca, config.tls.client_auth == "required"
        )
    except (OSError, ForeignFileError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StartError(f"tls: {certificate} and {private_key} cannot be used: {reason}") from None


class _Proxy:
    """All parts of one replica, joined."""

    def __init__(
        self,
        config: Config,
        public: socket.socket,
        private: socket.socket,
        tls: ssl.SSLContext | None,
        stream: LogStream,
    ) -> None:
        url = config.upstream.url
        self.config = config
        self.public = public
        self.private = private
        self.tls = tls
        self.metrics = Metrics(version("ollama-auth-proxy"))
        self.access_log = AccessLog(stream, config.log.format) if config.log.access else None
        self.pool = Pool(
            url.host,
            url.port,
            ssl.create_default_context() if url.scheme == "https" else None,
            config.upstream.connect_timeout,
        )
        self.issuer_keys: list[IssuerKeys] = []
        self.authenticator = Authenticator(
            api_keys=config.auth.api_keys, ssh_signatures=config.auth.ssh_signatures, tokens=self._tokens()
        )
        self.guards = Guards(config.policy.max_guarded_body)
        self.gateway = Gateway(
            authenticator=self.authenticator,
            failures=Failures(config.auth.failures_per_minute),
            anonymous=config.auth.anonymous,
            path_keys=config.auth.path_keys,
            policy=Policy(cloud=config.policy.cloud),
            guards=self.guards,
            pool=self.pool,
            authority=url.authority,
            metrics=self.metrics,
            access_log=self.access_log,
            trusted_proxies=config.listen.trusted_proxies,
        )
        self.shared = Shared(
            max_connections=config.listen.max_connections,
            max_header_bytes=config.listen.max_header_bytes,
            header_timeout=config.listen.header_timeout,
            idle_timeout=config.listen.idle_timeout,
            refused=self.gateway.refused,
            client_certificates=config.tls.client_ca is not None,
        )
        self.listener = Listener(self.gateway, public, tls, self.shared)
        self.last_used_fault = False
        self.upstream_url = f"{url.scheme}://{url.authority.decode('ascii')}"
        self.readiness = Readiness(draining=lambda: self.shared.draining)
        self.readiness.certificate_ends = self._certificate_end()
        self.metrics.certificate_expiry = lambda: self.readiness.certificate_ends
        self.metrics.issuer_keys = lambda: [
            IssuerKeysState(source.issuer.issuer, source.age(), source.failures)
            for source in self.issuer_keys
        ]
        if self.issuer_keys:
            self.readiness.issuers_without_keys = lambda: [
                source.issuer.issuer for source in self.issuer_keys if source.age() is None
            ]
        self.metrics.log_lines_dropped = lambda: stream.dropped
        self.metrics.open_connections = lambda: self.shared.open_connections
        self.ops = OpsListener(self._ops_app(), private)

    def _tokens(self) -> Tokens | None:
        if not self.config.auth.jwt:
            return None
        from proxy.identity.issued_tokens import IssuedTokens  # costs memory: python-jose and cryptography

        tokens = IssuedTokens(self.config.auth.jwt)
        self.issuer_keys = tokens.sources
        return tokens

    def _ops_app(self) -> FastAPI:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self.metrics)
        app = FastAPI(title="ollama-auth-proxy", docs_url=None, redoc_url=None)
        app.include_router(health_routes(self.readiness.checks()))
        app.include_router(metrics_routes(registry, self.config.ops.token))
        return app

    async def run(self, stop: _Signals, ready: Ready | None) -> int:
        config = self.config
        wanted = 2 * config.listen.max_connections + SPARE_FILES
        if (limit := raise_open_files(wanted)) < wanted:
            log.warning(
                "open files are limited to %d, which listen.max_connections can exceed: raise LimitNOFILE or"
                " ulimit -n to %d",
                limit,
                wanted,
            )
        for warning in config.warnings:
            log.warning(warning)
        asyncio.get_running_loop().set_exception_handler(_log_loop_fault)
        await self.ops.start()
        background = [asyncio.create_task(_keep_running(source.run)) for source in self.issuer_keys]
        await asyncio.sleep(0)  # they are asked for keys from the first request on
        await self.listener.start()
        background += [
            asyncio.create_task(_keep_running(work))
            for work in (
                lambda: follow(config.store.path, self.gateway.replace_keys, self._on_store_fault),
                lambda: probe_forever(self.upstream_url, self._on_probe),
                self._note_last_used,
                lambda: _every(1.0, self._close_stale),
                lambda: _every(CERTIFICATE_CHECK, self._renew_certificate),
            )
        ]
        port: int = self.public.getsockname()[1]
        ops_port: int = self.private.getsockname()[1]
        if ready is not None:
            await ready(port, ops_port)
        else:
            log.info(
                "serving %s on %s port %d, ops on %s port %d, forwarding to %s",
                "https" if self.tls else "http",
                config.listen.address.host,
                port,
                config.ops.address.host,
                ops_port,
                self.upstream_url,
            )
        await stop.drain.wait()
        whole = await self._drain(stop)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._write_last_used()
        self.pool.close()
        self.guards.close()
        await self.ops.close()
        if self.access_log is not None:
            self.access_log.flush()
        return 0 if whole else 1

    async def _drain(self, stop: _Signals) -> bool:
        """Let what is in flight finish; returns whether all of it did."""
        log.info("draining: no new connections, open streams may finish")
        ended = asyncio.create_task(stop.end.wait())
        draining = asyncio.create_task(self.listener.drain(self.config.listen.drain_timeout))
        await asyncio.wait({ended, draining}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, draining):
            task.cancel()
        cut = self.gateway.cut_all()
        whole = not cut and not self.listener.busy()
        if not whole:
            log.warning("cut %d requests in flight, and answers that were still on their way", cut)
            await asyncio.sleep(0.05)
        await self.listener.close()
        await asyncio.sleep(0.05)
        return whole

    # Background

    def _on_store_fault(self, fault: StoreError | None) -> None:
        self.readiness.store_fault = fault
        if fault is not None:
            log.error("the key store has a fault, keys that were read stay in force: %s", fault)
        else:
            log.info("the key store can be read again, all of it")

    async def _note_last_used(self) -> None:
        while True:
            await asyncio.sleep(LAST_USED_INTERVAL)
            await self._write_last_used()

    async def _write_last_used(self) -> None:
        used = self.authenticator.take_used()
        try:
            await write_last_used(self.config.store.path, used)
        except StoreError as fault:
            self.authenticator.put_back(used)
            if not self.last_used_fault:
                log.warning("the last use of keys cannot be noted, which is tried again: %s", fault)
            self.last_used_fault = True
        else:
            self.last_used_fault = False

    def _on_probe(self, answers: bool) -> None:
        if answers != self.readiness.upstream_answers and (
            self.readiness.upstream_answers is not None or not answers
        ):
            log.log(
                logging.INFO if answers else logging.WARNING,
                "Ollama at %s %s",
                self.upstream_url,
                "answers again" if answers else "does not answer: check that it runs there",
            )
        self.readiness.upstream_answers = answers
        self.metrics.upstream_up[self.upstream_url] = answers

    def _close_stale(self) -> None:
        self.pool.close_stale(time.monotonic())

    def _certificate_end(self) -> float | None:
        certificate = self.config.tls.certificate
        if self.tls is None or certificate is None:
            return None
        try:
            return certificate_expiry(certificate).timestamp()
        except (OSError, ValueError):
            return None

    def _renew_certificate(self) -> None:
        certificate, private_key = self.config.tls.certificate, self.config.tls.private_key
        if (
            self.tls is None
            or certificate is None
            or private_key is None
            or self.config.tls.mode != "self-signed"
        ):
            return
        try:
            if ensure_self_signed(certificate, private_key, datetime.now(UTC)):
                self.tls.load_cert_chain(certificate, private_key)
                log.info("the self-signed certificate was near its end and has been made anew")
        except (OSError, ForeignFileError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            log.error("the self-signed certificate cannot be renewed: %s", reason)
        self.readiness.certificate_ends = self._certificate_end()


async def _keep_running(work: Callable[[], Awaitable[None]]) -> None:
    """Begin a background task again when it fails; without the one that follows the store keys would stay."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a background task failed and is begun again")
        await asyncio.sleep(1)


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        work()


def _log_loop_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    exception = context.get("exception")
    if isinstance(exception, (ssl.SSLError, ConnectionError, TimeoutError)):
        # A handshake that failed or a client that vanished: the network's everyday, not a fault of ours.
        log.debug("connection lost: %s", type(exception).__name__)
        return
    log.error(context.get("message", "fault in the event loop"), exc_info=exception)
