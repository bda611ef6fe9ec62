"""From a request's header fields to an `Identity`. The keys are in memory, whole, and follow the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.identity import credentials
from proxy.identity.api_keys import ApiKey, Refusal, verify
from proxy.identity.identity import Identity


class Authenticator:
    """``accept_api_keys`` False refuses every key."""

    def __init__(self, *, accept_api_keys: bool = True) -> None:
        self._accept_api_keys = accept_api_keys
        self._keys: Mapping[str, ApiKey] = {}
        self._identities: dict[str, Identity] = {}

    def replace_keys(self, keys: Mapping[str, ApiKey]) -> frozenset[str]:
        """Take over the store's keys; returns the ids that were good before and are gone or revoked now."""
        before = {key.id for key in self._keys.values() if key.revoked is None}
        self._keys = keys
        self._identities = {
            key.id: Identity("api_key", key.id, key.name, key.scopes) for key in keys.values()
        }
        return frozenset(before - {key.id for key in keys.values() if key.revoked is None})

    def authenticate(
        self, fields: Sequence[tuple[bytes, bytes]], single: Mapping[bytes, bytes], now: float
    ) -> Identity:
        """Whose credential the fields hold (see `credentials.find`); ``now`` in unix seconds.

        Raises ProxyError: ``missing_credentials``, ``ambiguous_credentials``, ``invalid_credentials`` or
        ``expired_credentials``.
        """
        presented = credentials.find(fields, single)
        if not self._accept_api_keys:
            raise credentials.invalid()
        key = verify(self._keys, presented, now)
        if key is Refusal.EXPIRED:
            raise credentials.expired()
        if isinstance(key, Refusal):
            raise credentials.invalid()
        return self._identities[key.id]
