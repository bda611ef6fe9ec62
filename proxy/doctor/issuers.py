"""The keys of issuers of JWTs, and whether our clock agrees with theirs. `judge…` is pure."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.identity.issuer import Issuer
from proxy.identity.jwks_fetch import TIMEOUT, JwksFetch
from proxy.identity.key_set import KeySet, NoKeysError

GRANULARITY = 1.0
"""Seconds: what a Date field does not tell (RFC 9110 section 5.6.7)."""


async def fetch(issuer: Issuer) -> KeySet | str:
    """The keys as they are published, or why they cannot be had."""
    try:
        return await JwksFetch(issuer).fetch()
    except NoKeysError as fault:
        return str(fault)


async def clock_difference(issuer: Issuer) -> float | None:
    """By how many seconds the issuer's clock is ahead of ours; None where it does not tell."""
    address = issuer.jwks_url or issuer.issuer.removesuffix("/") + "/.well-known/openid-configuration"
    try:
        trusted: ssl.SSLContext | bool = True
        if issuer.ca_file is not None:
            trusted = ssl.create_default_context(cafile=issuer.ca_file)
        async with (
            httpx.AsyncClient(trust_env=False, verify=trusted, timeout=TIMEOUT) as client,
            client.stream("GET", address) as response,
        ):
            now = time.time()
            return parsedate_to_datetime(response.headers["Date"]).timestamp() - now
    except (httpx.HTTPError, httpx.InvalidURL, OSError, KeyError, ValueError):
        return None


def judge_keys(keys: KeySet | str, issuer: Issuer) -> Iterator[Finding]:
    name = issuer.issuer
    if isinstance(keys, str):
        yield error(
            "issuer_unreachable",
            f"the keys of {name} cannot be had: {keys}",
            "see that this machine reaches it, and that auth.jwt says where it has its keys",
        )
        return
    fitting = [key for key in keys.keys if issuer.algorithms & key.signature_lengths.keys()]
    algorithms = ", ".join(sorted(issuer.algorithms))
    if not fitting:
        yield error(
            "issuer_without_keys",
            f"none of the {len(keys.keys) + keys.dropped} keys of {name} can be used with {algorithms}",
            "write in auth.jwt the algorithms that the issuer signs with; RSA keys need 2048 bits",
        )
    else:
        yield ok("issuer_keys", f"{name} has {len(fitting)} keys for {algorithms}")
    if fitting and keys.dropped:
        yield note(
            "issuer_keys_dropped", f"{keys.dropped} more keys of {name} cannot be used safely, and are not"
        )


def judge_clock(difference: float | None, issuer: Issuer) -> Finding:
    if difference is None:
        return note("clock_unknown", f"{issuer.issuer} does not tell its time, so ours was not compared")
    way = "behind" if difference > 0 else "ahead of"
    seen = f"our clock is {abs(difference):.0f} s {way} that of {issuer.issuer}"
    beyond = abs(difference) - GRANULARITY - issuer.leeway
    mend = "let the clock be set (timedatectl set-ntp true); if ours is right, tell the issuer"
    if beyond > 0:
        leeway = (
            f"more than the leeway of {issuer.leeway:g} s, so good tokens are refused or ended ones taken"
        )
        return error("clock_wrong", f"{seen}, {leeway}", mend)
    if abs(difference) - GRANULARITY > max(issuer.leeway / 2, GRANULARITY):
        return warning("clock_drifts", f"{seen}, which is most of the leeway of {issuer.leeway:g} s", mend)
    return ok("clock", f"our clock agrees with that of {issuer.issuer}")
