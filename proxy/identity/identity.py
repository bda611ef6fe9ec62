"""Who is asking: what every way of authenticating ends in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who is known. ``auth`` names the way it was proved; ``scopes`` what is granted."""

    auth: str
    key_id: str | None
    key_name: str | None
    scopes: frozenset[str]


ANONYMOUS = Identity("anonymous", None, None, frozenset())
"""Whoever asks for a route that the operator opened to everybody; it is never asked what it may do."""
