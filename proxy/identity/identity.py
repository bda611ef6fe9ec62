"""Who a caller is and what was granted: what every way of authenticating ends in."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.identity.limits import NO_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who is known.

    ``auth`` names the way it was proved: ``api_key``, ``path_key``, ``jwt``, ``ssh_signature``,
    ``client_certificate`` or ``anonymous``. ``models`` are patterns over canonical names; None is every
    local model. ``cloud`` is the grant to use cloud models beside.
    """

    auth: str
    key_id: str | None
    key_name: str | None
    scopes: frozenset[str]
    models: tuple[str, ...] | None = None
    cloud: bool = False
    limits: Limits = NO_LIMITS
    limited: bool = field(init=False)
    """Whether the body of every request has to be read, whatever the policy for the cloud."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "limited", self.models is not None or self.limits.any)


ANONYMOUS = Identity("anonymous", None, None, frozenset())
"""Whoever asks for a route that the operator opened to everybody; it is never asked what it may do."""
