"""One replica: all parts, joined, run to their end, and changed when the configuration changes."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from proxy.background import every, keep_running, log_loop_fault
from proxy.config import Config, ConfigError
from proxy.config.changes import changed, waiting
from proxy.config.fault import Fault
from proxy.config.follow import Signatures
from proxy.config.follow import follow as follow_configuration
from proxy.gateway import Gateway, Rules
from proxy.guard.guards import Guards
from proxy.identity.api_keys import ApiKey
from proxy.identity.authenticator import Authenticator
from proxy.identity.failures import Failures
from proxy.observe import events
from proxy.observe.access_log import AccessLog
from proxy.observe.audit import Audit
from proxy.observe.events import log
from proxy.observe.ledger import Ledger
from proxy.observe.log_stream import LogStream
from proxy.observe.meter import Meter
from proxy.observe.metrics import IssuerKeysState, Metrics, Reload
from proxy.observe.models import Models
from proxy.ops.health import health_routes
from proxy.ops.listener import OpsListener
from proxy.ops.metrics import metrics_routes
from proxy.ops.readiness import Readiness
from proxy.policy.access import Policy
from proxy.policy.cors import Cors
from proxy.server import notify
from proxy.server.listener import Listener, raise_open_files
from proxy.server.shared import Shared
from proxy.store import ledger as stored_ledger
from proxy.store.errors import StoreError
from proxy.store.follow import follow as follow_keys
from proxy.store.last_used import write_last_used
from proxy.tls import ForeignFileError, certificate_expiry, ensure_self_signed, server_context
from proxy.upstream.model_list import follow_models
from proxy.upstream.pool import Pool
from proxy.upstream.probe import probe_forever

if TYPE_CHECKING:
    from proxy.identity.issued_tokens import IssuedTokens

CERTIFICATE_CHECK = 3600.0
"""Seconds between two looks at how long a self-signed certificate still lasts."""

WRITE_INTERVAL = 4.0
"""Seconds for which usage, and the times of keys' last use, are collected before they are written."""

PRUNE_INTERVAL = 3600.0
"""Seconds between two looks for usage that is older than store.usage_retention."""

TIME_TO_END = 30.0
"""Seconds that the service manager is asked for beside draining: for what is still to be written."""

SPARE_TIME = 10.0
"""Seconds of them that are not spent on a store which cannot be written."""

SPARE_FILES = 64
"""Open files beside the connections: listeners, store, log."""

Ready = Callable[[int, int], Awaitable[None]]
"""Told, with the public and the ops port, when the proxy serves."""


class Source(NamedTuple):
    """Where a configuration came from; ``load`` reads it again, raises ConfigError, and may block.

    ``first`` are the signatures of the files before they were read.
    """

    file: Path
    load: Callable[[], Config]
    first: Signatures


class Stop:
    """The first SIGTERM or SIGINT asks to drain, the second to end at once; SIGHUP asks for a reload."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.end = asyncio.Event()
        self.reload = asyncio.Event()

    def ask(self) -> None:
        (self.end if self.drain.is_set() else self.drain).set()


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The context of the public listener, None where TLS is off; a self-signed pair is made where needed.

    Raises OSError and ForeignFileError.
    """
    certificate, private_key = config.tls.certificate, config.tls.private_key
    if certificate is None or private_key is None:
        return None
    if config.tls.mode == "self-signed":
        ensure_self_signed(certificate, private_key, datetime.now(UTC))
    return server_context(
        certificate, private_key, config.tls.client_ca, config.tls.client_auth == "required"
    )


def unusable(config: Config, error: OSError | ForeignFileError) -> str:
    """What `tls_context` has refused, and why."""
    return f"{config.tls.certificate} and {config.tls.private_key} cannot be used: {_why(error)}"


def _why(error: OSError | ForeignFileError) -> str:
    """In the words of whoever refused the files."""
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


class Replica:
    """``public`` and ``private`` are the sockets of the two listeners; ``keys`` are those of the store."""

    def __init__(
        self,
        config: Config,
        public: socket.socket,
        private: socket.socket,
        tls: ssl.SSLContext | None,
        stream: LogStream,
        keys: Mapping[str, ApiKey],
    ) -> None:
        url = config.upstream.url
        self.config = config
        self.public = public
        self.private = private
        self.stream = stream
        self.metrics = Metrics(version("ollama-auth-proxy"))
        self.audit = Audit()
        self.access_log = AccessLog(stream, config.log.format)
        self.ledger = Ledger()
        self.models = Models()
        self.pool = Pool(
            url.host,
            url.port,
            ssl.create_default_context() if url.scheme == "https" else None,
            config.upstream.connect_timeout,
        )
        self.tokens = self._tokens(config)
        self.issuer_tasks: list[asyncio.Task[None]] = []
        self.authenticator = Authenticator(
            api_keys=config.auth.api_keys, ssh_signatures=config.auth.ssh_signatures, tokens=self.tokens
        )
        self.keys: Mapping[str, ApiKey] = keys
        self.guards = Guards(config.policy.max_guarded_body)
        self.gateway = Gateway(
            self._rules(config, Failures(config.auth.failures_per_minute)),
            authenticator=self.authenticator,
            guards=self.guards,
            pool=self.pool,
            authority=url.authority,
            metrics=self.metrics,
            meter=Meter(self.metrics, self.ledger, self.models),
            audit=self.audit,
        )
        self.gateway.replace_keys(keys)
        self.shared = Shared(
            max_connections=config.listen.max_connections,
            max_header_bytes=config.listen.max_header_bytes,
            header_timeout=config.listen.header_timeout,
            idle_timeout=config.listen.idle_timeout,
            refused=self.gateway.refused,
            client_certificates=config.tls.client_ca is not None,
        )
        self.shared.cors_fields = self.gateway.cors_fields
        self.listener = Listener(self.gateway, public, tls, self.shared)
        self.write_fault = False
        self.upstream_url = f"{url.scheme}://{url.authority.decode('ascii')}"
        self.readiness = Readiness(draining=lambda: self.shared.draining)
        self.readiness.certificate_ends = _certificate_end(config)
        self.metrics.certificate_expiry = lambda: self.readiness.certificate_ends
        self.metrics.issuer_keys = lambda: [
            IssuerKeysState(source.issuer.issuer, source.age(), source.failures)
            for source in (self.tokens.sources if self.tokens is not None else ())
        ]
        self.metrics.log_lines_dropped = lambda: stream.dropped
        self.metrics.open_connections = lambda: self.shared.open_connections
        self.metrics.reload = Reload(True, time.time())
        self.readiness.issuers_without_keys = self._issuers_without_keys
        self.ops = OpsListener(self._ops_app(), private)

    def _rules(self, config: Config, failures: Failures) -> Rules:
        return Rules(
            anonymous=frozenset((method, path.encode("ascii")) for method, path in config.auth.anonymous),
            path_keys=config.auth.path_keys,
            policy=Policy(cloud=config.policy.cloud),
            failures=failures,
            trusted_proxies=config.listen.trusted_proxies,
            cors=Cors(config.cors.allow_origins) if config.cors.allow_origins else None,
            access_log=self.access_log if config.log.access else None,
        )

    def _tokens(self, config: Config) -> IssuedTokens | None:
        if not config.auth.jwt:
            return None
        from proxy.identity.issued_tokens import IssuedTokens  # costs memory: python-jose and cryptography

        return IssuedTokens(config.auth.jwt)

    def _issuers_without_keys(self) -> list[str] | None:
        if self.tokens is None:
            return None
        return [source.issuer.issuer for source in self.tokens.sources if source.age() is None]

    def _ops_app(self) -> FastAPI:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self.metrics)
        app = FastAPI(title="ollama-auth-proxy", docs_url=None, redoc_url=None)
        app.include_router(health_routes(self.readiness.checks))
        app.include_router(metrics_routes(registry, lambda: self.config.ops.token))
        return app

    # The life of a replica

    async def run(self, stop: Stop, source: Source | None, ready: Ready | None) -> int:
        """Serve until ``stop``; returns 0 when every stream ended by itself, 1 when some were cut."""
        self._raise_open_files()
        for warning in self.config.warnings:
            events.warn(warning)
        asyncio.get_running_loop().set_exception_handler(log_loop_fault)
        await self.ops.start()
        self.issuer_tasks = self._run_issuers(self.tokens)
        await asyncio.sleep(0)  # they are asked for keys from the first request on
        await self.listener.start()
        works: list[Callable[[], Awaitable[None]]] = [
            lambda: follow_keys(self.config.store.path, self._on_keys, self._on_store_fault),
            lambda: probe_forever(self.upstream_url, self._on_probe),
            lambda: follow_models(self.upstream_url, self.models.replace),
            self._write_behind,
            self._prune,
            lambda: every(1.0, self._each_second),
            lambda: every(CERTIFICATE_CHECK, self._renew_certificate),
        ]
        if source is not None:
            works.append(
                lambda: follow_configuration(
                    source.file,
                    self.config,
                    source.load,
                    stop.reload,
                    self._reload,
                    self._refuse,
                    source.first,
                )
            )
        background = [asyncio.create_task(keep_running(work)) for work in works]
        await self._tell_ready(ready)
        await stop.drain.wait()
        state = notify.stopping(self.config.listen.drain_timeout + TIME_TO_END)
        notify.notify(f"{state}\n{notify.status('draining: open streams may finish')}", os.environ)
        whole = await self._drain(stop)
        for task in (*background, *self.issuer_tasks):
            task.cancel()
        await asyncio.gather(*background, *self.issuer_tasks, return_exceptions=True)
        await self._write_all()
        self.audit.sum_up(math.inf)
        self.pool.close()
        self.guards.close()
        await self.ops.close()
        self.access_log.flush()
        return 0 if whole else 1

    def _raise_open_files(self) -> None:
        wanted = 2 * self.config.listen.max_connections + SPARE_FILES
        if (limit := raise_open_files(wanted)) < wanted:
            log.warning(
                "open files are limited to %d, which listen.max_connections can exceed: raise LimitNOFILE or"
                " ulimit -n to %d",
                limit,
                wanted,
            )

    async def _tell_ready(self, ready: Ready | None) -> None:
        host, port = self.public.getsockname()[:2]
        ops_host, ops_port = self.private.getsockname()[:2]
        if ready is not None:
            await ready(port, ops_port)
        else:
            log.info(
                "serving %s on %s port %d, ops on %s port %d, forwarding to %s",
                "http" if self.config.tls.mode == "off" else "https",
                host,
                port,
                ops_host,
                ops_port,
                self.upstream_url,
            )
        notify.notify(f"{notify.READY}\n{notify.status(f'forwarding to {self.upstream_url}')}", os.environ)

    async def _drain(self, stop: Stop) -> bool:
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

    # Reload

    def _reload(self, new: Config) -> None:
        """Take over a new configuration for everything that begins from now on, or raise ConfigError.

        All that can fail comes first, so that it is taken over whole or not at all.
        """
        if self.shared.draining:  # nothing begins any more
            return
        notify.notify(notify.reloading(time.monotonic_ns()), os.environ)
        old = self.config
        needs_restart = waiting(old, new)
        new = _with_old(old, new, needs_restart)
        try:
            context = tls_context(new)
        except (OSError, ForeignFileError) as error:
            fault = Fault("tls", unusable(new, error), "name a certificate and its key")
            raise ConfigError((fault,)) from None
        tokens, failures = self.tokens, self.gateway.rules.failures
        if new.auth.jwt != old.auth.jwt or any(issuer.ca_file is not None for issuer in new.auth.jwt):
            tokens = self._tokens(new)
        if new.auth.failures_per_minute != old.auth.failures_per_minute:
            failures = Failures(new.auth.failures_per_minute)
        rules = self._rules(new, failures)
        if tokens is not self.tokens:
            self._replace_issuers(tokens)
        if (new.log.format, new.log.level) != (old.log.format, old.log.level):
            events.configure(self.stream, new.log.format, new.log.level)
            self.access_log.set_format(new.log.format)
        self.config = new
        self.gateway.rules = rules
        self._accept_credentials()
        self.pool.connect_timeout = new.upstream.connect_timeout
        shared = self.shared
        shared.max_header_bytes = new.listen.max_header_bytes
        shared.header_timeout = new.listen.header_timeout
        shared.idle_timeout = new.listen.idle_timeout
        shared.client_certificates = new.tls.client_ca is not None
        if shared.max_connections != new.listen.max_connections:
            shared.max_connections = new.listen.max_connections
            self._raise_open_files()
            if shared.room is not None:  # there may be room now for connections that wait
                room, shared.room = shared.room, None
                room()
        if _asks_for(context) != _asks_for(self.listener.tls):
            self._retire_connections()
        self.listener.tls = context
        self.readiness.certificate_ends = _certificate_end(new)
        self.metrics.reload = Reload(True, time.time())
        self.audit.configured(changed(old, new), needs_restart)
        for warning in sorted(set(new.warnings) - set(old.warnings)):
            events.warn(warning)
        status = notify.status(f"forwarding to {self.upstream_url}")
        notify.notify(f"{notify.READY}\n{status}", os.environ)

    def _retire_connections(self) -> None:
        """Close those whose clients came in by other certificates, or without; each after its request."""
        now = time.monotonic()
        for connection in list(self.listener.connections):
            connection.certificate = None
            if connection.exchange is not None:
                connection.exchange.close = True
            else:
                connection.close_if_quiet(now, 0.0)

    def _refuse(self, fault: ConfigError) -> None:
        self.metrics.reload = Reload(False, self.metrics.reload.succeeded_at)
        self.audit.configuration_refused(map(str, fault.faults))
        status = notify.status("configuration refused, the one before stays in force: see the log")
        notify.notify(f"{notify.READY}\n{status}", os.environ)

    def _accept_credentials(self) -> None:
        auth = self.config.auth
        self.authenticator.accept(
            api_keys=auth.api_keys, ssh_signatures=auth.ssh_signatures, tokens=self.tokens
        )

    def _run_issuers(self, tokens: IssuedTokens | None) -> list[asyncio.Task[None]]:
        sources = tokens.sources if tokens is not None else ()
        return [asyncio.create_task(keep_running(source.run)) for source in sources]

    def _replace_issuers(self, tokens: IssuedTokens | None) -> None:
        """Issuers that stay keep their keys, so that no token of theirs is refused meanwhile."""
        if tokens is not None and self.tokens is not None:
            tokens.inherit(self.tokens)
        for task in self.issuer_tasks:
            task.cancel()
        self.tokens = tokens
        self.issuer_tasks = self._run_issuers(tokens)

    # Background

    def _on_keys(self, keys: Mapping[str, ApiKey]) -> None:
        self.audit.keys(self.keys, keys)
        self.keys = keys
        self.gateway.replace_keys(keys)

    def _on_store_fault(self, fault: StoreError | None) -> None:
        self.readiness.store_fault = fault
        if fault is not None:
            log.error("the key store has a fault, keys that were read stay in force: %s", fault)
        else:
            log.info("the key store can be read again, all of it")

    async def _write_behind(self) -> None:
        while True:
            await asyncio.sleep(WRITE_INTERVAL)
            await self._write()

    async def _write_all(self) -> None:
        """Write all that was collected, before the end; a store that is locked is waited for."""
        deadline = time.monotonic() + TIME_TO_END - SPARE_TIME
        while True:
            await self._write()
            if not self.write_fault and self.ledger.batch() is None:
                return
            if self.write_fault:
                if time.monotonic() > deadline:
                    log.error("usage of the last seconds is lost: the store cannot be written")
                    return
                await asyncio.sleep(0.2)

    async def _write(self) -> None:
        """Write what was collected; what cannot be written is kept, and tried again."""
        path = self.config.store.path
        used, batch = self.authenticator.take_used(), self.ledger.batch()
        try:
            if batch is not None:
                await stored_ledger.write(path, batch)
                self.ledger.written(batch)
            await write_last_used(path, used)
            used = {}
        except StoreError as fault:
            if not self.write_fault:
                log.warning("usage and the last use of keys cannot be noted, which is tried again: %s", fault)
            self.write_fault = True
        else:
            self.write_fault = False
        finally:
            self.authenticator.put_back(used)

    async def _prune(self) -> None:
        while True:
            if retention := self.config.store.usage_retention:
                try:
                    await stored_ledger.prune(self.config.store.path, int(time.time() - retention))
                except StoreError as fault:
                    log.warning("old usage cannot be removed, which is tried again: %s", fault)
            await asyncio.sleep(PRUNE_INTERVAL)

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

    def _each_second(self) -> None:
        now = time.monotonic()
        self.pool.close_stale(now)
        self.audit.sum_up(now)

    def _renew_certificate(self) -> None:
        tls = self.config.tls
        if tls.mode != "self-signed" or tls.certificate is None or tls.private_key is None:
            return
        try:
            if ensure_self_signed(tls.certificate, tls.private_key, datetime.now(UTC)):
                self.listener.tls = tls_context(self.config)
                log.info("the self-signed certificate was near its end and has been made anew")
        except (OSError, ForeignFileError) as error:
            log.error("the self-signed certificate cannot be renewed: %s", _why(error))
        self.readiness.certificate_ends = _certificate_end(self.config)


def _asks_for(tls: ssl.SSLContext | None) -> tuple[ssl.VerifyMode, list[bytes]] | None:
    """Which certificates of clients a context asks for: how, and of which authorities."""
    return None if tls is None else (tls.verify_mode, sorted(tls.get_ca_certs(binary_form=True)))


def _certificate_end(config: Config) -> float | None:
    """When the certificate ends, in unix seconds; None where there is none."""
    certificate = config.tls.certificate
    if certificate is None:
        return None
    try:
        return certificate_expiry(certificate).timestamp()
    except (OSError, ValueError):
        return None


def _with_old(old: Config, new: Config, options: Iterable[str]) -> Config:
    """The new configuration with these options as they were: they count only after a restart."""
    tables: dict[str, dict[str, object]] = {}
    for option in options:
        table, _, key = option.partition(".")
        tables.setdefault(table, {})[key] = getattr(getattr(old, table), key)
        if option == "tls.mode":  # with it go the files, which one of the two modes does not have
            tables["tls"] = dict(old.tls)
    return new.model_copy(
        update={table: getattr(new, table).model_copy(update=keys) for table, keys in tables.items()}
    )
