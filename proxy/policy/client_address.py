"""Whose address a request came from, behind balancers that are trusted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def client_address(peer: str, forwarded_for: bytes | None, trusted: Sequence[Network]) -> str:
    """The address to log and to throttle by.

    ``forwarded_for`` is X-Forwarded-For, of several all joined by commas. It is read from the right, as each
    balancer appends who connected to it, and believed only as far as the ones that wrote it are trusted.
    """
    address = peer
    for hop in reversed(forwarded_for.split(b",") if forwarded_for is not None else ()):
        if not _is_in(address, trusted):
            break
        claimed = hop.strip(b" \t").decode("latin-1")
        if "%" in claimed:  # a scope id may hold anything, and means nothing on another machine
            break
        try:
            ip = ip_address(claimed)
        except ValueError:
            break
        address = str(getattr(ip, "ipv4_mapped", None) or ip)
    return address


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in network for network in networks)
