"""By what names and addresses this machine is reached, as far as it can tell without asking anyone."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

MOST_ADDRESSES = 32  # a Kubernetes node can have thousands, and the certificate goes out in every handshake


def host_names() -> list[str]:
    """``localhost``, the host name and, where it is known, the fully qualified one."""
    names = ["localhost", socket.gethostname(), socket.getfqdn()]
    usable = [name for name in names if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", name)]
    return list(dict.fromkeys(usable))


def addresses() -> list[IPv4Address | IPv6Address]:
    """The loopback addresses and the machine's own, the most useful first. Best effort."""
    found: dict[IPv4Address | IPv6Address, None] = {}
    for text in ("127.0.0.1", "::1", *_of_default_routes(), *_of_host_name(), *_of_interfaces()):
        address = ip_address(text.partition("%")[0])
        if not address.is_unspecified and not address.is_link_local:
            found[address] = None
    return list(found)[:MOST_ADDRESSES]


def _of_default_routes() -> Iterator[str]:
    """The address that traffic to the outside comes from. Connecting UDP chooses it and sends nothing."""
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((somewhere, 9))
            yield probe.getsockname()[0]


def _of_host_name() -> Iterator[str]:
    with suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            yield str(address[0])


def _of_interfaces() -> Iterator[str]:
    """Every local address, from the kernel's own tables; Linux only."""
    with suppress(OSError):
        table = Path("/proc/net/fib_trie").read_text("ascii")
        yield from re.findall(r"\|-- ([0-9.]+)\s+/32 host LOCAL", table)
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text("ascii").splitlines():
            yield str(IPv6Address(bytes.fromhex(line[:32])))
