"""Finds out what a guarded request asks for, as soon as its body is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.guard.judge import Asked, judge
from proxy.guard.scan import Scan, values_in
from proxy.guard.whole_body import Budget, WholeBody, too_large
from proxy.guard.workers import Workers
from proxy.identity.identity import Identity
from proxy.policy.access import Guard
from proxy.policy.body import NO_FACTS, Facts, facts_of_path, unreadable
from proxy.policy.routes import ModelPlace, Route
from proxy.server.drive import Ended
from proxy.server.exchange import Exchange

AT_ONCE = 64 * 1024
AT_ONCE_VALUES = 2000
"""Bytes and values that are parsed where they are: 2 ms at the worst, a tenth of one for ordinary bodies."""

ALL_BODIES = 4
"""All bodies that are being guarded may take this many times what one may."""


class Guards:
    """``max_body`` in bytes, see policy.max_guarded_body."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._budget = Budget(ALL_BODIES * max_body)
        self._workers = Workers(max_body)

    def facts_at_once(self, exchange: Exchange, route: Route, how: Guard) -> Facts | None:
        """What the request asks for, where that can be told without waiting; else None.

        Raises ProxyError ``unreadable_body``, and ``body_too_large`` before anything of the body is read.
        """
        head = exchange.head
        if route.model is ModelPlace.PATH:
            return facts_of_path(exchange.path.rpartition(b"/")[2])
        if b"content-encoding" in head.single:
            raise unreadable("Content-Encoding is not accepted here: send the body as it is")
        if route.model is ModelPlace.FORM_MODEL and head.query:
            raise unreadable("this route takes no query: name the model in the form")
        if head.length is not None and head.length > self._max_body:
            raise too_large(self._max_body)
        if not exchange.request_complete:
            return None
        if how is Guard.SCAN:
            scan = Scan(route)
            for piece in exchange.held:
                scan.feed(piece)
            if not scan.found:
                return NO_FACTS
        if not _is_small(exchange.held, exchange.received):
            return None
        return judge(_asked(exchange, route), exchange.held)

    def whole_body(self, exchange: Exchange, route: Route, how: Guard, identity: Identity) -> WholeBody:
        """What is to take the body in; ``identity`` is whose it is."""
        holder = identity.key_id or (identity.auth, identity.key_name)
        scan = Scan(route) if how is Guard.SCAN else None
        return WholeBody(exchange, self._max_body, self._budget, holder, scan)

    async def facts(self, exchange: Exchange, route: Route, body: WholeBody) -> Facts:
        """What the request asks for, when its body is there; the exchange then holds it again.

        Returns early where the client left. Raises ProxyError ``unreadable_body``, ``body_too_large``,
        ``queue_full``, or whatever ended the body.
        """
        await body.read()
        if exchange.finished:
            return NO_FACTS
        facts = NO_FACTS
        if body.scan is None or body.scan.found:
            asked = _asked(exchange, route)
            if _is_small(body.pieces, body.size):
                facts = judge(asked, body.pieces)
            else:
                facts = await _meanwhile(
                    exchange, body, asyncio.ensure_future(self._workers.judge(asked, body.pieces, body.size))
                )
        body.give_back()
        return facts

    def close(self) -> None:
        self._workers.close()


def _asked(exchange: Exchange, route: Route) -> Asked:
    return Asked(route, exchange.joined(b"content-type"))


def _is_small(pieces: Sequence[bytes], size: int) -> bool:
    """Whether parsing takes so little that nobody notices."""
    return size <= AT_ONCE and values_in(pieces) <= AT_ONCE_VALUES


async def _meanwhile(exchange: Exchange, body: WholeBody, work: asyncio.Future[Facts]) -> Facts:
    """The result of ``work``, unless the request is cut before, or the client leaves (then nothing)."""
    body.ended = Ended()
    work.add_done_callback(lambda _: body.ended.end())
    await body.ended
    if exchange.finished or body.error is not None:
        work.add_done_callback(_forget)
        work.cancel()
        if body.error is not None:
            raise body.error
        return NO_FACTS
    return work.result()


def _forget(work: asyncio.Future[Facts]) -> None:
    """Nobody wants the result any more, nor to hear of a refusal."""
    if not work.cancelled():
        work.exception()
