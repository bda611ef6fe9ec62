"""Whether anybody has a key that holds. Pure; the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.identity.api_keys import ApiKey

DAY = 86400
SOON = 7
"""Days."""


def judge(
    keys: Sequence[ApiKey], unreadable: Sequence[str], now: float, *, others: bool
) -> Iterator[Finding]:
    """``others`` says that people can have other credentials than these."""
    if unreadable:
        yield error(
            "keys_unreadable",
            f"keys in the store cannot be read, and are refused: {', '.join(unreadable)}",
            "revoke them ('ollama-auth-proxy keys revoke ID') and create others",
        )
    living = [key for key in keys if key.revoked is None]
    good = [key for key in living if key.expires is None or key.expires > now]
    say = note if others else warning
    if not keys:
        yield say("no_keys", "there is no key yet", "make one: ollama-auth-proxy keys create NAME")
    elif not living:
        yield say("keys_revoked", "every key is revoked", "make one: ollama-auth-proxy keys create NAME")
    elif not good:
        yield say(
            "keys_ended",
            f"every key that was not revoked has expired: {_names(living)}",
            "extend them: ollama-auth-proxy keys set ID --expires 90d",
        )
    else:
        yield ok("keys", f"{len(good)} of {len(keys)} keys hold")
    if ending := [key for key in good if key.expires is not None and key.expires - now <= SOON * DAY]:
        yield warning(
            "keys_end_soon",
            f"within {SOON} days these keys end: {_names(ending)}",
            "extend them: ollama-auth-proxy keys set ID --expires 90d",
        )


def _names(keys: Sequence[ApiKey]) -> str:
    more = f", and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(f"{key.name} ({key.id})" for key in keys[:5]) + more
