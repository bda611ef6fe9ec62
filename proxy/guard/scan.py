"""Whether a body could speak of what is forbidden, told from its raw bytes, piece by piece. Pure.

Most bodies hold no word of the cloud, and then they need not be parsed. JSON can spell a letter in one
other way only, as ``\\u`` and its number; a form can do so in quoted-printable parts.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.policy.routes import ModelPlace, Route

_JSON = (b"cloud", b"\\u")
_WEB = (b"web_", b"cloud", b"\\u")
_FORM = (b"cloud", b"transfer-encoding")


class Scan:
    """``found`` says that a word of the route stood somewhere in what was fed."""

    __slots__ = ("_end", "_longest", "_words", "found")

    def __init__(self, route: Route) -> None:
        if route.model is ModelPlace.FORM_MODEL:
            self._words: tuple[bytes, ...] = _FORM
        else:
            self._words = _WEB if route.web_tools else _JSON
        self._longest = max(map(len, self._words))
        self._end = b""
        self.found = False

    def feed(self, piece: bytes) -> None:
        if self.found:
            return
        text = (self._end + piece).lower()
        self.found = any(word in text for word in self._words)
        self._end = text[1 - self._longest :]


def values_in(pieces: Iterable[bytes]) -> int:
    """At least as many values as JSON in these pieces holds: what separates values, wherever it stands."""
    return sum(piece.count(mark) for piece in pieces for mark in (b",", b"[", b"{"))
