"""The models that Ollama lists: the only names of models that metrics, the log and the ledger ever see.

Whatever clients send, the number of names is bounded. Those of models that are gone stay, as counters do.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from proxy.policy.model_names import Reading, read_name

MOST_NAMES = 300
"""Names that are told apart in the life of the process; those after them are ``other``. Whoever may create
models could make any number."""

UNLISTED = "other"


class Models:
    """``names`` are canonical, see `proxy.policy.model_names`."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._ever: set[str] = set()

    def replace(self, listed: Iterable[str]) -> None:
        """Take over what Ollama lists now, in any spelling."""
        names = {canonical(name) for name in listed} - {""}
        for name in sorted(names - self._ever)[: MOST_NAMES - len(self._ever)]:
            self._ever.add(name)
        self.names = frozenset(names & self._ever)

    def label(self, name: str | None) -> str:
        """The canonical name where Ollama lists it, else ``other``; ``name`` is what a client wrote."""
        if name is None:
            return UNLISTED
        found = canonical(name) if len(name) < 512 else ""
        return found if found in self.names else UNLISTED


@lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    return read_name(name, Reading.REFERENCE).canonical
