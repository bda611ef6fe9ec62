"""Takes a request body in, whole and within bounds, before anything of it goes to Ollama."""

from __future__ import annotations

from proxy.errors import ProxyError
from proxy.guard.scan import Scan
from proxy.server.drive import Ended
from proxy.server.exchange import Exchange

UNCOUNTED = 64 * 1024
"""Bytes of each body that no budget counts: as many as a connection may hold of any body."""


class Budget:
    """Bytes that all bodies being guarded may take together, and those of one caller: half of it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._by_holder: dict[object, int] = {}

    def take(self, holder: object, size: int) -> bool:
        """Whether ``holder`` may hold so many bytes more."""
        used = self._by_holder.get(holder, 0) + size
        if used > self.total // 2 or self.used + size > self.total:
            return False
        self._by_holder[holder] = used
        self.used += size
        return True

    def give_back(self, holder: object, size: int) -> None:
        self.used -= size
        left = self._by_holder.pop(holder, 0) - size
        if left > 0:
            self._by_holder[holder] = left


def too_large(limit: int) -> ProxyError:
    return ProxyError(
        "body_too_large",
        f"the body is larger than {limit} bytes, which is all that is read for this key: send less, or ask"
        " the operator for policy.max_guarded_body",
    )


def _too_many() -> ProxyError:
    return ProxyError(
        "queue_full",
        "too many large bodies are being read at once, of all callers or of yours: try again in a moment",
        headers=((b"Retry-After", b"1"),),
    )


class WholeBody:
    """Implements `server.exchange.Peer`, until the body is complete and judged.

    ``pieces`` are the body as it came; ``scan`` has seen them. ``holder`` is whose body it is; `release`
    gives back what it takes of the budget.
    """

    def __init__(
        self, exchange: Exchange, limit: int, budget: Budget, holder: object, scan: Scan | None
    ) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.error: ProxyError | None = None
        self.ended = Ended()
        self._exchange = exchange
        self._limit = limit
        self._budget = budget
        self._holder = holder
        self._counted = 0
        self.scan = scan
        exchange.peer = self

    async def read(self) -> None:
        """Wait for the end of the body; afterwards the exchange holds it again.

        Raises ProxyError: ``body_too_large``, ``queue_full`` where all that is being read takes too much,
        or what `client_failed` and `cut` were given. Returns early where the client left.
        """
        if self._exchange.finished:
            return
        self._exchange.accept_body(self)
        await self.ended
        if self.error is not None:
            raise self.error

    def give_back(self) -> None:
        """Let the exchange hold the body, for whoever accepts it next."""
        pieces, self.pieces = self.pieces, []
        if not self._exchange.finished:
            self._exchange.hold(pieces)

    def release(self) -> None:
        """The memory is not held any more; a second time has no effect."""
        self._budget.give_back(self._holder, self._counted)
        self._counted = 0
        self.pieces = []

    def cut(self, error: ProxyError) -> None:
        """End it from outside, with ``error``."""
        self._fail(error)

    # Peer

    def body(self, data: bytes) -> None:
        if self.error is not None:
            return
        self.size += len(data)
        more = max(0, self.size - UNCOUNTED) - self._counted
        if self.size > self._limit:
            self._fail(too_large(self._limit))
        elif more > 0 and not self._budget.take(self._holder, more):
            self._fail(_too_many())
        else:
            self._counted += max(0, more)
            self.pieces.append(data)
            if self.scan is not None:
                self.scan.feed(data)

    def body_end(self) -> None:
        self.ended.end()

    def client_left(self) -> None:
        self.ended.end()

    def client_failed(self, error: ProxyError) -> None:
        self._exchange.close = True
        self._fail(error)

    def pause_response(self) -> None:
        pass

    def resume_response(self) -> None:
        pass

    def _fail(self, error: ProxyError) -> None:
        if self.error is None:
            self.error = error
            self.pieces = []
            self.ended.end()
