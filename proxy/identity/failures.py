"""Counts refused credentials by address, so that guessing becomes slow. Pure; the clock is an argument.

Only refusals are counted and only refusals are held back: whoever has a good credential is served, however
many bad ones come from the same address.
"""

from __future__ import annotations

import math
from ipaddress import IPv6Address, ip_address

WINDOW = 60.0
"""Seconds for which failures are counted together."""

MOST_ADDRESSES = 8192
"""Addresses that are remembered; a flood from more of them forgets the oldest."""


class Failures:
    """``per_minute`` failures of one address are answered as what they are; 0 holds nobody back."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._counts: dict[str, tuple[float, int]] = {}

    def add(self, address: str, now: float) -> int:
        """Count one, at ``now`` in seconds; returns the seconds to wait, 0 where none are asked for."""
        if not self.per_minute:
            return 0
        network = _network(address)
        since, count = self._counts.get(network, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        if not count:  # those that began last stand last
            self._counts.pop(network, None)
            if len(self._counts) >= MOST_ADDRESSES:
                del self._counts[next(iter(self._counts))]
        self._counts[network] = since, count + 1
        return math.ceil(since + WINDOW - now) if count >= self.per_minute else 0


def _network(address: str) -> str:
    """The address itself; of IPv6 the /64, which is what one subscriber has (RFC 6177)."""
    if ":" not in address:
        return address
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(int(ip) >> 64) if isinstance(ip, IPv6Address) else address
