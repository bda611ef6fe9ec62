"""The request path, top to bottom: accept, who, may they, forward, observe.

A bare ASGI coroutine, one call a request. Each step takes values and returns values; nothing calls back up.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from proxy.errors import COUNTED_AS_DENIED, ProxyError
from proxy.identity import credentials
from proxy.identity.api_keys import ApiKey
from proxy.identity.authenticator import Authenticator
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.observe.access_log import AccessLog, Entry
from proxy.observe.events import log
from proxy.observe.metrics import Metrics
from proxy.policy import routes
from proxy.policy.access import authorise, require_route
from proxy.policy.client_address import Network, client_address
from proxy.policy.routes import OTHER
from proxy.server.client_connection import ClientConnection
from proxy.server.exchange import EXTENSION, Exchange
from proxy.server.head import malformed
from proxy.upstream.pool import Pool
from proxy.upstream.relay import Relay

CLIENT_LEFT = 499
"""The status in metrics and log of a request whose client left before the end (nginx's number)."""


class Gateway:
    """``authority`` is what Ollama wants as Host; ``anonymous`` are the (method, path) open to everybody."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        anonymous: frozenset[tuple[str, str]],
        pool: Pool,
        authority: bytes,
        metrics: Metrics,
        access_log: AccessLog | None,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self._authenticator = authenticator
        self._anonymous = {(method, path.encode("ascii")) for method, path in anonymous}
        self._pool = pool
        self._authority = authority
        self._metrics = metrics
        self._access_log = access_log
        self._trusted_proxies = trusted_proxies
        self._in_flight: dict[Relay, Identity] = {}

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        exchange: Exchange = scope["extensions"][EXTENSION]
        method, raw_path = exchange.method, exchange.head.path
        route = routes.match(method, raw_path)
        label = OTHER if route is None else route.path
        counted = self._metrics.route(label)
        counted.in_flight += 1
        identity: Identity | None = None
        relay: Relay | None = None
        error: ProxyError | None = None
        sent = 0
        try:
            if route is None and not routes.is_canonical(raw_path):
                raise malformed("the path is not canonical: send it without escapes, empty or dot segments")
            if (method, raw_path) in self._anonymous:
                identity = ANONYMOUS
            else:
                identity = self._authenticator.authenticate(
                    exchange.fields, exchange.head.single, time.time()
                )
            route = require_route(route, raw_path)
            authorise(identity, route)
            relay = Relay(exchange, route, self._pool)
            self._in_flight[relay] = identity
            await relay.run(self._authority)
        except ProxyError as refused:
            error = refused.with_traceback(None)  # its frame holds us: a cycle for each refusal
        except Exception:
            log.exception("a request ended in a fault of the proxy itself")
            error = ProxyError("internal_error", "the proxy failed: the operator finds the reason in its log")
        if relay is not None:
            del self._in_flight[relay]
            sent = relay.sent
        if error is not None and not exchange.finished:
            if exchange.response_started:
                exchange.abort()
            else:
                sent = exchange.refuse(error, routes.dialect_of(raw_path) if route is None else route.dialect)
        counted.in_flight -= 1
        status, outcome = self._judge(exchange, relay, error)
        if error is not None and error.status in COUNTED_AS_DENIED and status == error.status:
            self._metrics.denied(error.code)
        ended_at = time.monotonic()
        self._metrics.finished(
            counted, method, status, exchange.received, sent, ended_at - exchange.started_at
        )
        if relay is not None:
            if relay.forwarded_at:
                self._metrics.added_latency(relay.forwarded_at - exchange.started_at)
            if relay.first_byte_at:
                counted.first_byte.observe(relay.first_byte_at - exchange.started_at)
            if relay.failure:
                self._metrics.upstream_failed(relay.failure)
        if self._access_log is not None:
            self._access_log.write(
                Entry(
                    exchange.request_id,
                    self._address(exchange),
                    method,
                    label,
                    status,
                    error.code if error is not None else None,
                    identity,
                    exchange.received,
                    sent,
                    exchange.started_at,
                    ended_at,
                    relay.first_byte_at if relay is not None else 0.0,
                    outcome,
                )
            )

    def _judge(self, exchange: Exchange, relay: Relay | None, error: ProxyError | None) -> tuple[int, str]:
        """The status and the outcome that log and metrics tell."""
        if relay is not None:
            if relay.left_in:
                self._metrics.client_left(relay.left_in)
                return CLIENT_LEFT, "client_closed"
            if relay.cut_off:
                return relay.status or (error.status if error is not None else CLIENT_LEFT), "aborted"
            if relay.failure:
                return relay.status or (error.status if error is not None else 502), "upstream_failed"
            if error is None:
                return relay.status, "ok"
            return error.status, "aborted"
        if exchange.gone and not exchange.response_started:
            self._metrics.client_left("waiting" if exchange.request_complete else "upload")
            return CLIENT_LEFT, "client_closed"
        return error.status if error is not None else 500, "denied"

    def _address(self, exchange: Exchange) -> str:
        peer = exchange.connection.client
        address = peer[0] if peer is not None else ""
        if not self._trusted_proxies:
            return address
        return client_address(address, exchange.joined(b"x-forwarded-for"), self._trusted_proxies)

    def refused(self, connection: ClientConnection, error: ProxyError, request_id: bytes, sent: int) -> None:
        """Count and log an answer of the guards, behind which there is no request that could be read."""
        counted = self._metrics.route(OTHER)
        now = time.monotonic()
        self._metrics.finished(counted, OTHER, error.status, 0, sent, now - connection.since)
        if error.status in COUNTED_AS_DENIED:
            self._metrics.denied(error.code)
        if self._access_log is not None:
            client = connection.client[0] if connection.client is not None else ""
            self._access_log.write(
                Entry(
                    request_id,
                    client,
                    "-",
                    OTHER,
                    error.status,
                    error.code,
                    None,
                    0,
                    sent,
                    connection.since,
                    now,
                    0.0,
                    "denied",
                )
            )

    def replace_keys(self, keys: Mapping[str, ApiKey]) -> None:
        """Take over the store's keys, and end what revoked ones have in flight."""
        gone = self._authenticator.replace_keys(keys)
        for relay, identity in list(self._in_flight.items()):
            if identity.key_id in gone:
                relay.cut(credentials.invalid())

    def cut_all(self) -> int:
        """End every request in flight, as draining has taken too long; returns how many there were."""
        error = ProxyError(
            "draining",
            "the proxy is shutting down: try again in a moment",
            headers=((b"Retry-After", b"5"),),
        )
        in_flight = list(self._in_flight)
        for relay in in_flight:
            relay.cut(error)
        return len(in_flight)
