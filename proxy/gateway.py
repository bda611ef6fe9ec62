"""The request path, top to bottom: accept, who, may they (its body read, where need be), forward, observe.

A bare ASGI coroutine, one call a request. Each step takes values and returns values; nothing calls back up.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import COUNTED_AS_DENIED, ProxyError
from proxy.guard.guards import Guards
from proxy.guard.whole_body import WholeBody
from proxy.identity import credentials
from proxy.identity.api_keys import ApiKey
from proxy.identity.authenticator import Authenticator, Presented
from proxy.identity.failures import Failures
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.identity.ssh_signature import is_time
from proxy.observe.access_log import AccessLog, Entry
from proxy.observe.audit import Audit
from proxy.observe.events import log
from proxy.observe.meter import Cost, Meter
from proxy.observe.metrics import Metrics, RouteMetrics
from proxy.policy import routes
from proxy.policy.access import Guard, Policy, authorise_request, authorise_route, guard, no_route
from proxy.policy.body import NO_FACTS, Facts
from proxy.policy.client_address import Network, client_address
from proxy.policy.cors import Cors, preflight
from proxy.policy.routes import OTHER, ModelPlace, Route, Scope
from proxy.server.client_connection import ClientConnection
from proxy.server.exchange import EXTENSION, Exchange
from proxy.server.head import malformed
from proxy.upstream.pool import Pool
from proxy.upstream.relay import Relay

CLIENT_LEFT = 499
"""The status in metrics and log of a request whose client left before the end (nginx's number)."""


WAITS_FOR_KEYS = 2
"""How often a request waits for the keys of its JWT's issuer: again where a reload came in between."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a reload can change; a request keeps to those it began under.

    ``anonymous`` are the (method, path) open to everybody; ``cors`` is None where no page may use the proxy,
    ``access_log`` None where requests are not logged.
    """

    anonymous: frozenset[tuple[str, bytes]]
    path_keys: bool
    policy: Policy
    failures: Failures
    trusted_proxies: Sequence[Network]
    cors: Cors | None
    access_log: AccessLog | None


class Gateway:
    """``authority`` is what Ollama wants as Host. ``rules`` may be replaced at any time."""

    def __init__(
        self,
        rules: Rules,
        *,
        authenticator: Authenticator,
        guards: Guards,
        pool: Pool,
        authority: bytes,
        metrics: Metrics,
        meter: Meter,
        audit: Audit,
    ) -> None:
        self.rules = rules
        self._authenticator = authenticator
        self._guards = guards
        self._pool = pool
        self._authority = authority
        self._metrics = metrics
        self._meter = meter
        self._audit = audit
        self._in_flight: dict[Relay | WholeBody, Identity] = {}

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        exchange: Exchange = scope["extensions"][EXTENSION]
        rules = self.rules
        if rules.cors is not None:
            exchange.own_fields = rules.cors.fields_for(exchange.joined(b"origin"))
            if allowed := preflight(rules.cors, exchange.method, exchange.fields):
                exchange.answer(allowed)
                self._observe_own(
                    rules,
                    None,
                    request_id=exchange.request_id,
                    client=self._address(exchange, rules),
                    method=exchange.method,
                    status=204,
                    received=exchange.received,
                    sent=0,
                    started_at=exchange.started_at,
                )
                return
        method = exchange.method
        policy = rules.policy
        path_key = None
        if rules.path_keys and exchange.path.startswith(credentials.PATH_PREFIX):
            path_key = _take_path_key(exchange)
        raw_path = exchange.path
        route = routes.match(method, raw_path)
        counted = self._metrics.routes[OTHER if route is None else route.path]
        counted.in_flight += 1
        identity: Identity | None = None
        presented: Presented | None = None
        facts = NO_FACTS
        body: WholeBody | None = None
        relay: Relay | None = None
        error: ProxyError | None = None
        sent = 0
        try:
            if route is None and not routes.is_canonical(raw_path):
                raise malformed("the path is not canonical: send it without escapes, empty or dot segments")
            if (method, raw_path) in rules.anonymous:
                identity = ANONYMOUS
            else:
                now = time.time()
                presented = self._presented(exchange, path_key, now)
                known = self._authenticator.authenticate(presented, now)
                for _ in range(WAITS_FOR_KEYS):
                    if isinstance(known, Identity):
                        break
                    await known
                    known = self._authenticator.authenticate(presented, time.time())
                if not isinstance(known, Identity):
                    raise credentials.invalid()
                identity = known
            if route is None:
                raise no_route(raw_path)
            authorise_route(identity, route, policy)
            how = guard(identity, route, policy)
            if how is not Guard.NONE:
                at_once = self._guards.facts_at_once(exchange, route, how)
                if at_once is not None:
                    facts = at_once
                else:
                    body = self._guards.whole_body(exchange, route, how, identity)
                    self._in_flight[body] = identity
                    try:
                        facts = await self._guards.facts(exchange, route, body)
                    finally:
                        del self._in_flight[body]
                authorise_request(identity, route, facts, policy)
            if not exchange.finished:  # else the client has left meanwhile
                if exchange.head.query:
                    _drop_query(exchange, identity, route, policy)
                relay = Relay(exchange, route, self._pool, None if body is None else body.release)
                self._in_flight[relay] = identity
                await relay.run(self._authority)
        except ProxyError as refused:
            error = refused.with_traceback(None)  # its frame holds us: a cycle for each refusal
            if identity is None and refused.status == 401:
                error = self._throttled(refused, exchange, rules)
        except Exception:
            log.exception("a request ended in a fault of the proxy itself")
            error = ProxyError("internal_error", "the proxy failed: the operator finds the reason in its log")
        if body is not None:
            body.release()
        if relay is not None:
            del self._in_flight[relay]
            sent = relay.sent
        if error is not None and not exchange.finished:
            if exchange.response_started:
                exchange.abort()
            else:
                sent = exchange.refuse(error, routes.dialect_of(raw_path) if route is None else route.dialect)
        counted.in_flight -= 1
        self._observe(exchange, rules, counted, route, identity, facts, relay, error, sent)
        if error is not None and error.status in COUNTED_AS_DENIED and relay is None:
            self._tell_refused(exchange, rules, error, identity, presented)

    def _presented(self, exchange: Exchange, path_key: bytes | None, now: float) -> Presented:
        head, certificate = exchange.head, exchange.connection.certificate
        name = None
        # A browser shows its user's certificate for any page, so it proves nothing where a page asks.
        if certificate is not None and b"origin" not in head.single:
            name = certificate[0] if now < certificate[1] else ""  # its connection may have outlived it
        return Presented(
            exchange.method, exchange.path, head.query, exchange.fields, head.single, path_key, name
        )

    def _throttled(self, refused: ProxyError, exchange: Exchange, rules: Rules) -> ProxyError:
        """What to answer a bad credential: the refusal itself, or 429 where there were too many of them."""
        if refused.code == "missing_credentials":
            return refused
        wait = rules.failures.add(self._address(exchange, rules), time.monotonic())
        return credentials.too_many_failures(rules.failures.per_minute, wait) if wait else refused

    def _tell_refused(
        self,
        exchange: Exchange,
        rules: Rules,
        error: ProxyError,
        identity: Identity | None,
        presented: Presented | None,
    ) -> None:
        """Write a line for the operator, unless there were many; it tells more than the client got."""
        address = self._address(exchange, rules)
        if not self._audit.wants(error.code, address, time.monotonic()):
            return
        verdict: str | None = None
        key_id = None if identity is None else identity.key_id
        if identity is None and presented is not None:
            verdict, key_id = self._authenticator.explain(presented, time.time())
        self._audit.refused(error.code, address, exchange.request_id, key_id, verdict)

    def _observe(
        self,
        exchange: Exchange,
        rules: Rules,
        counted: RouteMetrics,
        route: Route | None,
        identity: Identity | None,
        facts: Facts,
        relay: Relay | None,
        error: ProxyError | None,
        sent: int,
    ) -> None:
        """Count and log a request that is over, once."""
        metrics, started_at, ended_at = self._metrics, exchange.started_at, time.monotonic()
        first_byte_at = 0.0
        asked = facts.names[0].canonical if facts.names else None
        if relay is None or route is None or identity is None:
            status, outcome = _judge_refused(exchange, error)
            cost = Cost(self._meter.label(route, asked) if identity is not None else None)
        else:
            status, outcome = _judge(relay, error)
            try:
                cost = self._meter.finished(
                    route, relay, identity, asked, outcome, started_at, ended_at, exchange.request_id
                )
            except Exception:  # metering fails open
                log.exception("the cost of a request could not be read")
                cost = Cost(None)
            if cost.broken:
                outcome = "upstream_failed"
                metrics.upstream_failures["truncated"] += 1
            first_byte_at = relay.first_byte_at
            if relay.forwarded_at:
                # Ours is the time since the client was done, where its body was waited for.
                waited = exchange.completed_at if exchange.completed_at <= relay.forwarded_at else 0.0
                metrics.added_latency.observe(relay.forwarded_at - max(started_at, waited))
            if first_byte_at:
                counted.first_byte.observe(first_byte_at - started_at)
            if relay.failure:
                metrics.upstream_failures[relay.failure] += 1
        if outcome == "client_closed":
            metrics.disconnects[relay.left_in if relay is not None else _phase(exchange)] += 1
        elif error is not None and status == error.status and status in COUNTED_AS_DENIED:
            metrics.denied[error.code] = metrics.denied.get(error.code, 0) + 1
        counted.finished(
            exchange.method, status, exchange.received, sent, ended_at - started_at, exchange.request_id
        )
        if rules.access_log is not None:
            rules.access_log.write(
                Entry(
                    exchange.request_id,
                    self._address(exchange, rules),
                    exchange.method,
                    counted.path,
                    status,
                    None if error is None else error.code,
                    identity,
                    cost.model,
                    exchange.received,
                    sent,
                    started_at,
                    ended_at,
                    first_byte_at,
                    cost.input_tokens,
                    cost.output_tokens,
                    outcome,
                )
            )

    def _observe_own(
        self,
        rules: Rules,
        error: ProxyError | None,
        *,
        request_id: bytes,
        client: str,
        method: str,
        status: int,
        received: int,
        sent: int,
        started_at: float,
    ) -> None:
        """Count and log an answer of ours that no route and no caller stands behind."""
        now = time.monotonic()
        self._metrics.routes[OTHER].finished(method, status, received, sent, now - started_at)
        if error is not None and status in COUNTED_AS_DENIED:
            self._metrics.denied[error.code] = self._metrics.denied.get(error.code, 0) + 1
        if rules.access_log is not None:
            rules.access_log.write(
                Entry(
                    request_id,
                    client,
                    method,
                    OTHER,
                    status,
                    None if error is None else error.code,
                    None,
                    None,
                    received,
                    sent,
                    started_at,
                    now,
                    0.0,
                    None,
                    None,
                    "ok" if error is None else "denied",
                )
            )

    def _address(self, exchange: Exchange, rules: Rules) -> str:
        address = exchange.connection.client_address
        if not rules.trusted_proxies:
            return address
        return client_address(address, exchange.joined(b"x-forwarded-for"), rules.trusted_proxies)

    def refused(self, connection: ClientConnection, error: ProxyError, request_id: bytes, sent: int) -> None:
        """Count and log an answer of the guards, behind which there is no request that could be read."""
        self._observe_own(
            self.rules,
            error,
            request_id=request_id,
            client=connection.client_address,
            method="-",
            status=error.status,
            received=0,
            sent=sent,
            started_at=connection.since,
        )

    def cors_fields(self, origin: bytes | None) -> bytes:
        """The field lines of CORS that every answer to this Origin carries."""
        cors = self.rules.cors
        return b"" if cors is None else cors.fields_for(origin)

    def replace_keys(self, keys: Mapping[str, ApiKey]) -> None:
        """Take over the store's keys, and end what revoked ones have in flight."""
        gone = self._authenticator.replace_keys(keys)
        for request, identity in list(self._in_flight.items()):
            if identity.key_id in gone:
                request.cut(credentials.invalid())

    def cut_all(self) -> int:
        """End every request in flight, as draining has taken too long; returns how many there were."""
        error = ProxyError(
            "draining",
            "the proxy is shutting down: try again in a moment",
            headers=((b"Retry-After", b"5"),),
        )
        in_flight = list(self._in_flight)
        for request in in_flight:
            request.cut(error)
        return len(in_flight)


def _take_path_key(exchange: Exchange) -> bytes | None:
    """The key in the path, which then is no more a part of the path; None where there is none."""
    split = credentials.split_path(exchange.target)
    if split is None:
        return None
    key, exchange.target = split
    exchange.path = exchange.target.partition(b"?")[0]
    return key


def _drop_query(exchange: Exchange, identity: Identity, route: Route, policy: Policy) -> None:
    """Leave out a query that is meant for us, and one that Ollama would send on to its vendor's cloud.

    Clients put credentials of all kinds there, and none of Ollama's routes that lead to the cloud reads it.
    """
    if (
        identity.auth == "ssh_signature"
        or (identity is ANONYMOUS and is_time(exchange.head.query))
        or route.scope is Scope.ACCOUNT
        or (policy.cloud and identity.cloud and route.model is not ModelPlace.NONE)
    ):
        exchange.target = exchange.path


def _judge(relay: Relay, error: ProxyError | None) -> tuple[int, str]:
    """The status and the outcome, for log and metrics, of a request that was to be forwarded."""
    if error is None and not relay.left_in and not relay.failure and not relay.cut_off:
        return relay.status, "ok"
    if relay.left_in:
        return CLIENT_LEFT, "client_closed"
    status = relay.status or (error.status if error is not None else CLIENT_LEFT)
    return status, "upstream_failed" if relay.failure and not relay.cut_off else "aborted"


def _judge_refused(exchange: Exchange, error: ProxyError | None) -> tuple[int, str]:
    """The same for one that was refused, or whose client left first."""
    if error is None or (exchange.gone and not exchange.response_started):
        return CLIENT_LEFT, "client_closed"
    return error.status, "denied"


def _phase(exchange: Exchange) -> str:
    return "waiting" if exchange.request_complete else "upload"
