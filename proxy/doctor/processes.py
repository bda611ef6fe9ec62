"""Who listens where on this machine, and for whom: read from /proc. On other systems nothing is known."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_LISTEN = "0A"
_INIT = 1


class Socket(NamedTuple):
    """A socket that listens. ``user`` opened it."""

    address: IPv4Address | IPv6Address
    port: int
    user: int
    inode: str


def listening(port: int) -> list[Socket]:
    """Those of this network namespace, by whomever."""
    return [socket for socket in _sockets() if socket.port == port]


def _sockets() -> Iterator[Socket]:
    for table in ("net/tcp", "net/tcp6"):
        with suppress(OSError):
            yield from parse_table((PROC / table).read_text("ascii"))


def parse_table(text: str) -> Iterator[Socket]:
    """proc(5), /proc/net/tcp: the address is in hexadecimal, each of its 32 bit words in the host's order."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            host, _, port = fields[1].partition(":")
            words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
            address = ip_address(b"".join(words))
            if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            yield Socket(address, int(port, 16), int(fields[7]), fields[9])


def holders(sockets: Collection[Socket]) -> list[int]:
    """The processes that have these sockets open, as far as we may see them."""
    wanted = {f"socket:[{socket.inode}]" for socket in sockets}
    found = []
    for pid in pids():
        with suppress(OSError), os.scandir(PROC / str(pid) / "fd") as descriptors:
            for descriptor in descriptors:
                with suppress(OSError):
                    if os.readlink(descriptor.path) in wanted:
                        found.append(pid)
                        break
    return found


def pids() -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(PROC) if name.isdigit())
    except OSError:
        return []


def serving(port: int) -> int | None:
    """The process that serves a port, as far as we may see it; systemd, which only opened it, does not."""
    found = [pid for pid in holders(listening(port)) if pid != _INIT]
    return found[0] if found else None


def user_of(pid: int) -> int | None:
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None


def command_of(pid: int) -> list[str]:
    """The arguments that a process was started with; empty where it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []
