"""Whether the proxy can serve, and if not, why: what /readyz tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from proxy.ops.health import Check, State


class Readiness:
    """Collects what the parts of the proxy find out about themselves.

    ``upstream_answers`` is None until Ollama was asked; ``store_fault`` says why the store cannot be read;
    ``certificate_ends`` is in unix seconds, None without TLS; ``issuers_without_keys`` names the issuers of
    JWTs whose keys could never be read, and gives None where there are no issuers.
    """

    def __init__(self, draining: Callable[[], bool]) -> None:
        self._draining = draining
        self.upstream_answers: bool | None = None
        self.store_fault: Exception | None = None
        self.certificate_ends: float | None = None
        self.issuers_without_keys: Callable[[], list[str] | None] = lambda: None

    def checks(self) -> Mapping[str, Check]:
        checks = {
            "draining": self._check_draining,
            "store": self._check_store,
            "upstream": self._check_upstream,
            "certificate": self._check_certificate,
        }
        return checks if self.issuers_without_keys() is None else {**checks, "issuers": self._check_issuers}

    def _check_draining(self) -> tuple[State, str]:
        return ("failing", "the proxy is shutting down") if self._draining() else ("ok", "")

    def _check_store(self) -> tuple[State, str]:
        # The keys in memory still hold, so requests are served.
        return ("degraded", str(self.store_fault)) if self.store_fault is not None else ("ok", "")

    def _check_upstream(self) -> tuple[State, str]:
        if self.upstream_answers is None:
            return "failing", "Ollama has not been asked yet"
        return ("ok", "") if self.upstream_answers else ("failing", "Ollama does not answer")

    def _check_certificate(self) -> tuple[State, str]:
        if self.certificate_ends is not None and self.certificate_ends <= time.time():
            return "failing", "the certificate has ended"
        return "ok", ""

    def _check_issuers(self) -> tuple[State, str]:
        # Keys of other kinds still open the proxy.
        names = self.issuers_without_keys()
        return ("degraded", f"no keys yet of {', '.join(names)}") if names else ("ok", "")
