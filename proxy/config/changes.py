"""What a new configuration changes, and which of it counts only after a restart. Pure."""

from __future__ import annotations

from proxy.config.tables import Config

NEED_A_RESTART = frozenset(
    {
        "listen.address",  # the socket is bound once, and maybe by systemd
        "upstream.url",
        "ops.address",
        "store.url",
        "policy.max_guarded_body",  # processes are started for it
    }
)
"""Options whose change waits for a restart; ``tls.mode`` to or from "off" is another."""


def changed(before: Config, after: Config) -> frozenset[str]:
    """The options, as TABLE.KEY, whose values differ."""
    return frozenset(
        f"{table}.{key}"
        for table in Config.model_fields
        for key in type(getattr(before, table)).model_fields
        if getattr(getattr(before, table), key) != getattr(getattr(after, table), key)
    )


def waiting(before: Config, after: Config) -> frozenset[str]:
    """Those of `changed` that count only after a restart."""
    names = changed(before, after)
    found = names & NEED_A_RESTART
    if "tls.mode" in names and "off" in (before.tls.mode, after.tls.mode):
        found |= {"tls.mode"}
    return found
