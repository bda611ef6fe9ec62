"""Who changed what, and who was refused: lines with ``event: audit`` in the same stream as the rest.

They never hold a credential, and they are told whatever log.level says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields

from proxy.identity.api_keys import ApiKey
from proxy.observe.sampling import Sampling

log = logging.getLogger("ollama_auth_proxy.audit")

_TOLD_OF_KEYS = tuple(
    field.name
    for field in fields(ApiKey)
    if field.name not in ("id", "name", "secrets", "revoked", "last_used", "created", "kind")
)
"""What of a key is told by name when it changes; its values stay in the store."""

MOST_KEYS = 100
"""Keys whose change is told one by one at once; a restored backup may change thousands."""


class Audit:
    """Writes the lines. Refusals are sampled, see `proxy.observe.sampling`."""

    def __init__(self) -> None:
        self._sampling = Sampling()

    def wants(self, code: str, address: str, now: float) -> bool:
        """Count a refusal, at ``now`` in monotonic seconds; whether `refused` is to be called for it."""
        return self._sampling.wants(code, address, now)

    def refused(
        self, code: str, address: str, request_id: bytes, key_id: str | None, verdict: str | None
    ) -> None:
        """A request was refused. ``verdict`` says of a bad credential more than its sender was told."""
        _tell(
            "refused",
            f"refused: {code}" + (f" ({verdict})" if verdict else ""),
            code=code,
            client=address,
            request_id=request_id.decode("ascii"),
            key_id=key_id,
            verdict=verdict,
        )

    def sum_up(self, now: float) -> None:
        """Tell, once a minute at most, how many refusals were not told one by one; at infinity, the rest."""
        for reason, address, times in self._sampling.take(now):
            _tell(
                "refused_more",
                f"refused {times} times more in a minute: {reason}",
                code=reason,
                client=address or None,
                count=times,
            )

    def keys(self, before: Mapping[str, ApiKey], after: Mapping[str, ApiKey]) -> None:
        """Tell which keys were made, changed, rotated or revoked.

        No command removes a key. One that is gone was revoked, or is not in a backup that was restored.
        """
        changes = [
            change
            for key_id in {**before, **after}
            if (change := _change(before.get(key_id), after.get(key_id)))
        ]
        for action, key, changed in changes[:MOST_KEYS]:
            text = f"{action.replace('_', ' ')}: {key.name}"
            if changed:
                text += f" ({', '.join(changed)})"
            _tell(action, text, key_id=key.id, key_name=key.name, changed=changed)
        if len(changes) > MOST_KEYS:
            count = len(changes) - MOST_KEYS
            _tell("keys_changed", f"{count} keys more changed at once", count=count)

    def configured(self, changed: Iterable[str], restart: Iterable[str]) -> None:
        """A new configuration is in force; ``restart`` are changes that wait for one."""
        names, waiting = sorted(changed), sorted(restart)
        _tell(
            "configuration_changed",
            f"the configuration was read again: {', '.join(names) or 'no option'} changed"
            + (f"; {', '.join(waiting)} will not count before a restart" if waiting else ""),
            changed=names,
            restart_needed=waiting,
        )

    def configuration_refused(self, faults: Iterable[str]) -> None:
        """A new configuration is invalid, and the one before stays in force."""
        told = list(faults)
        _tell(
            "configuration_refused",
            f"the new configuration is refused, the one before stays in force: {' | '.join(told)}",
            logging.ERROR,
            faults=told,
        )


def _change(before: ApiKey | None, after: ApiKey | None) -> tuple[str, ApiKey, list[str]] | None:
    was_good = before is not None and before.revoked is None
    if after is None or after.revoked is not None:
        key = after or before
        return ("key_revoked", key, []) if key is not None and was_good else None
    if before is None:
        return "key_created", after, []
    if after == before:
        return None
    changed = [name for name in _TOLD_OF_KEYS if getattr(before, name) != getattr(after, name)]
    if after.secrets != before.secrets:
        return "key_rotated", after, changed
    return "key_changed", after, changed


def _tell(action: str, text: str, level: int = logging.INFO, /, **members: object) -> None:
    log.log(level, text, extra={"event": "audit", "fields": {"action": action, **members}})
