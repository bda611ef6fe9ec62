"""From a JWT to an `Identity`: the one module that decides whether a token holds. Pure.

The order is from cheap to dear: the form, the claims, the key, and the signature last, which costs more than
everything else of a small request. Hence two memories, both by the SHA-256 of the whole token: what has
been proved is not proved again while it holds, and what failed is not tried again with the same keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from proxy.identity import jwt_form
from proxy.identity.api_keys import Refusal
from proxy.identity.identity import Identity
from proxy.identity.issuer import Issuer
from proxy.identity.jwt_claims import end_of, identity_from
from proxy.identity.key_set import NO_KEYS, KeySet

MAX_PROVED = 10_000
"""Tokens that are remembered as good; the one not seen for longest is forgotten first."""

MAX_REFUSED = 1_000
"""Tokens whose signature failed that are remembered; the one that failed first is forgotten first."""


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """All is right with a token that can be seen without its key, and that key is not at hand.

    Either the issuer's keys have no such ``kid``, or the token has none and no key of theirs signed it. Only
    of issuers whose keys are fetched: they may have published a new one. Then the token can be tried again.
    """

    issuer: Issuer


class TokenVerifier:
    """Raises ValueError where two issuers have one name. None of them has keys before `replace_keys`."""

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self._issuers: dict[str, Issuer] = {}
        for issuer in issuers:
            if issuer.issuer in self._issuers:
                raise ValueError(f"two issuers are called {issuer.issuer}")
            self._issuers[issuer.issuer] = issuer
        self._keys: dict[str, KeySet] = dict.fromkeys(self._issuers, NO_KEYS)
        self._proved: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._refused: OrderedDict[bytes, None] = OrderedDict()

    def replace_keys(self, issuer: Issuer, keys: KeySet) -> None:
        """From now on the issuer's tokens are checked with these; what was remembered is forgotten."""
        self._keys[issuer.issuer] = keys
        self.clear()

    def clear(self) -> None:
        """Forget all tokens."""
        self._proved.clear()
        self._refused.clear()

    def verify(self, token: bytes, now: float) -> Identity | UnknownKey | Refusal:
        """Whom the token proves, at ``now`` in unix seconds; the token may be anything. Never raises.

        Every other token is `Refusal.INVALID`, whatever is wrong with it.
        """
        if len(token) > jwt_form.MAX_TOKEN_BYTES or token.count(b".") != 2:
            return Refusal.INVALID
        digest = sha256(token).digest()
        proved = self._proved.get(digest)
        if proved is not None:
            if now < proved[1]:
                self._proved.move_to_end(digest)
                return proved[0]
            del self._proved[digest]
        if digest in self._refused:
            return Refusal.INVALID
        try:
            return self._judge(token, digest, now)
        except Exception:  # ValueError from our own rules; but a token must not find a way around any fault
            return Refusal.INVALID

    def _judge(self, token: bytes, digest: bytes, now: float) -> Identity | UnknownKey | Refusal:
        told = jwt_form.read(token)
        name = told.claims.get("iss")
        issuer = self._issuers.get(name) if type(name) is str else None
        if issuer is None or told.algorithm not in issuer.algorithms:
            return Refusal.INVALID
        ends = end_of(told.claims, issuer, now)
        if ends is None:
            return Refusal.INVALID
        keys = self._keys[issuer.issuer]
        key = keys.choose(told.kid, told.algorithm)
        if key is None:
            if issuer.remote and keys.lacks(told.kid, told.algorithm):
                return UnknownKey(issuer)
            return Refusal.INVALID
        if len(told.signature) != key.signature_lengths[told.algorithm]:
            return Refusal.INVALID
        if not key.signed(token, told.algorithm):
            if len(self._refused) >= MAX_REFUSED:
                self._refused.popitem(last=False)
            self._refused[digest] = None
            # Without a kid, a new key shows only by this.
            renewed = issuer.remote and (told.kid is None or not keys.named)
            return UnknownKey(issuer) if renewed else Refusal.INVALID
        identity = identity_from(told.claims, issuer)
        if now < ends:  # within the leeway every request is a check of its own
            if len(self._proved) >= MAX_PROVED:
                self._proved.popitem(last=False)
            self._proved[digest] = identity, ends
        return identity
