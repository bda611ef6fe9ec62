"""Who may issue JWTs, and what their claims mean here: one ``[[auth.jwt]]`` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Issuer:
    """Exactly one of the five sources of keys is set.

    A claim's name may be empty: then it is not looked at. One that is named but missing from a token
    grants nothing, except that ``default_scopes`` stand in for missing scopes. ``leeway`` is in seconds.
    """

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    jwks_url: str = ""
    discovery: bool = False
    jwks_file: Path | None = None
    public_key_file: Path | None = None
    secret_file: Path | None = None
    ca_file: Path | None = None
    scope_claim: str = "scope"
    models_claim: str = ""
    cloud_claim: str = ""
    limits_claim: str = ""
    name_claim: str = "sub"
    default_scopes: frozenset[str] = frozenset()
    leeway: float = 30.0

    @property
    def remote(self) -> bool:
        """Whether its keys are fetched over HTTP."""
        return bool(self.jwks_url) or self.discovery
