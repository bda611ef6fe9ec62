"""From what a request holds to an `Identity`. The keys are in memory, whole, and follow the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from proxy.errors import ProxyError
from proxy.identity import credentials, ssh_signature
from proxy.identity.api_keys import SSH, ApiKey, Form, Refusal, classify, id_of, verify
from proxy.identity.credentials import BEARER, PATH, SIGNATURE
from proxy.identity.identity import Identity
from proxy.identity.limits import limits_from
from proxy.identity.verdict import Verdict, judge


class Presented(NamedTuple):
    """Where credentials can stand in a request.

    ``fields`` have names in lower case, ``single`` are the same by name (of a repeated one, the last).
    ``path`` and ``query`` are without a key in the path, which is ``path_key``. ``certificate`` is the
    subject's CN of the client's verified certificate, empty where that has none or several, and None
    without a certificate.
    """

    method: str
    path: bytes
    query: bytes
    fields: Sequence[tuple[bytes, bytes]]
    single: Mapping[bytes, bytes]
    path_key: bytes | None = None
    certificate: str | None = None


class Tokens(Protocol):
    """Whoever verifies JWTs."""

    def verify(self, token: bytes, now: float) -> Identity | asyncio.Future[None] | None:
        """Whose token it is; None where it is refused.

        A future where the keys of its issuer have to be fetched first: ask again when it is done.
        """


class Authenticator:
    """``api_keys`` and ``ssh_signatures`` say which kinds are accepted; ``tokens`` None accepts no JWT."""

    def __init__(
        self, *, api_keys: bool = True, ssh_signatures: bool = True, tokens: Tokens | None = None
    ) -> None:
        self._api_keys = api_keys
        self._ssh_signatures = ssh_signatures
        self._tokens = tokens
        self._keys: Mapping[str, ApiKey] = {}
        self._ssh_keys: dict[bytes, ApiKey] = {}
        self._by_name: dict[str, ApiKey] = {}
        self._identities: dict[str, Identity] = {}
        self._used: dict[str, float] = {}

    def accept(self, *, api_keys: bool, ssh_signatures: bool, tokens: Tokens | None) -> None:
        """Take over what a new configuration says of the kinds of credentials."""
        self._api_keys = api_keys
        self._ssh_signatures = ssh_signatures
        self._tokens = tokens

    def replace_keys(self, keys: Mapping[str, ApiKey]) -> frozenset[str]:
        """Take over the store's keys; returns the ids that were good before and are gone or revoked now."""
        before = {key.id for key in self._keys.values() if key.revoked is None}
        usable = [key for key in keys.values() if key.revoked is None]
        self._keys = keys
        self._ssh_keys = {secret.digest: key for key in usable if key.kind == SSH for secret in key.secrets}
        self._by_name = {key.name: key for key in usable}
        self._identities = {key.id: _identity(key) for key in usable}
        return frozenset(before - {key.id for key in usable})

    def take_used(self) -> dict[str, float]:
        """The keys that were used since the last call, by id, with the unix second of their last use."""
        used, self._used = self._used, {}
        return used

    def put_back(self, used: Mapping[str, float]) -> None:
        """What `take_used` gave could not be kept: give it again."""
        self._used = {**used, **self._used}

    def explain(self, presented: Presented, now: float) -> tuple[str | None, str | None]:
        """What an operator may know of a credential that was refused: a verdict, and the id of its key.

        The verdict is a value of `Verdict` where it has the place of an API key, else the place's kind.
        """
        try:
            found = credentials.find(presented.fields, presented.single, presented.path_key)
        except ProxyError:
            return None, None
        if found is None:
            return (None, None) if presented.certificate is None else ("client_certificate", None)
        value, place = found
        if place is SIGNATURE:
            return "ssh_signature", None
        text = value.decode("latin-1")
        key = self._keys.get(id_of(text)) if classify(text) is Form.KEY else None
        verdict = judge(text, key, now)
        if verdict is Verdict.NO_KEY and place is BEARER and value.count(b".") == 2:
            return "jwt", None
        return verdict.value, None if key is None else key.id

    def authenticate(self, presented: Presented, now: float) -> Identity | asyncio.Future[None]:
        """Whose credential the request holds (see `credentials.find`); ``now`` in unix seconds.

        A future where a JWT's issuer has to be asked for its keys first: call again when it is done.

        Raises ProxyError: ``missing_credentials``, ``ambiguous_credentials``, ``invalid_credentials`` or
        ``expired_credentials``.
        """
        found = credentials.find(presented.fields, presented.single, presented.path_key)
        if found is None:
            if presented.certificate is None:
                raise credentials.missing()
            return self._holder_of(presented.certificate, now)
        value, place = found
        if place is SIGNATURE:
            return self._signer(value, presented, now)
        if self._tokens is not None and place is BEARER and not value.startswith(b"oap_"):
            identity = self._tokens.verify(value, now)
            if identity is None:
                raise credentials.invalid()
            return identity
        if not self._api_keys:
            raise credentials.invalid()
        key = _accepted(verify(self._keys, value, now))
        self._used[key.id] = now
        holder = self._identities[key.id]
        return replace(holder, auth="path_key") if place is PATH else holder

    def _signer(self, signature: bytes, presented: Presented, now: float) -> Identity:
        if not self._ssh_signatures:
            raise credentials.invalid()
        key = _accepted(
            ssh_signature.verify(
                self._ssh_keys, signature, presented.method, presented.path, presented.query, now
            )
        )
        self._used[key.id] = now
        return self._identities[key.id]

    def _holder_of(self, certificate: str, now: float) -> Identity:
        """Whose certificate it is: the handshake verified it, but the key of that name must still hold."""
        key = self._by_name.get(certificate)
        if key is None:
            raise credentials.invalid()
        if key.expires is not None and now >= key.expires:
            raise credentials.expired()
        self._used[key.id] = now
        return replace(self._identities[key.id], auth="client_certificate")


def _accepted(found: ApiKey | Refusal) -> ApiKey:
    if isinstance(found, ApiKey):
        return found
    raise credentials.expired() if found is Refusal.EXPIRED else credentials.invalid()


def _identity(key: ApiKey) -> Identity:
    return Identity(
        "ssh_signature" if key.kind == SSH else "api_key",
        key.id,
        key.name,
        key.scopes,
        key.models,
        key.cloud,
        limits_from(key.limits),
    )
