"""JWTs and the keys of those who issue them, joined; imported only where the configuration names issuers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from proxy.identity.identity import Identity
from proxy.identity.issuer import Issuer
from proxy.identity.issuer_keys import IssuerKeys
from proxy.identity.jwt import TokenVerifier, UnknownKey


class IssuedTokens:
    """Implements `authenticator.Tokens`. Somebody has to run each of ``sources``."""

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        issuers = tuple(issuers)
        self._verifier = TokenVerifier(issuers)
        self.sources = [IssuerKeys(issuer, self._verifier.replace_keys) for issuer in issuers]
        self._source_of = {source.issuer.issuer: source for source in self.sources}

    def inherit(self, before: IssuedTokens) -> None:
        """Begin with the keys that were known of issuers which are the same as ``before``."""
        for source in self.sources:
            for old in before.sources:
                if old.issuer == source.issuer and old.age() is not None:
                    source.inherit(old)
                    self._verifier.replace_keys(source.issuer, old.keys)

    def verify(self, token: bytes, now: float) -> Identity | asyncio.Future[None] | None:
        """Whose token it is, None where it is refused, a future where its issuer has to be asked first."""
        found = self._verifier.verify(token, now)
        if isinstance(found, Identity):
            return found
        if isinstance(found, UnknownKey):
            return self._source_of[found.issuer.issuer].refresh_wanted()
        return None
