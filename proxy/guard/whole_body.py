"""Takes a request body in, whole and within bounds, before anything of it goes to Ollama."""

from __future__ import annotations

from proxy.errors import ProxyError
from proxy.guard.scan import Scan
from proxy.server.drive import Ended
from proxy.server.exchange import Exchange


class Budget:
    """Bytes that all bodies being guarded may take together."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0


def too_large(limit: int) -> ProxyError:
    return ProxyError(
        "body_too_large",
        f"the body is larger than {limit} bytes, which is all that is read for this key: send less, or ask"
        " the operator for policy.max_guarded_body",
    )


def _too_many() -> ProxyError:
    return ProxyError(
        "queue_full",
        "too many large bodies are being read at once: try again in a moment",
        headers=((b"Retry-After", b"1"),),
    )


class WholeBody:
    """Implements `server.exchange.Peer`, until the body is complete and judged.

    ``pieces`` are the body as it came; ``scan`` has seen them. `release` gives back what it takes of the
    budget.
    """

    def __init__(self, exchange: Exchange, limit: int, budget: Budget, scan: Scan | None) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.error: ProxyError | None = None
        self.ended = Ended()
        self._exchange = exchange
        self._limit = limit
        self._budget = budget
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
        if not self._exchange.finished:
            self._exchange.hold(self.pieces)

    def release(self) -> None:
        """The memory is not held any more; a second time has no effect."""
        self._budget.used -= self.size
        self.size = 0
        self.pieces = []

    def cut(self, error: ProxyError) -> None:
        """End it from outside, with ``error``."""
        self._fail(error)

    # Peer

    def body(self, data: bytes) -> None:
        if self.error is not None:
            return
        self.size += len(data)
        self._budget.used += len(data)
        if self.size > self._limit:
            self._fail(too_large(self._limit))
        elif self._budget.used > self._budget.total:
            self._fail(_too_many())
        else:
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
