"""What the service manager is told of the proxy's state: sd_notify(3)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

TIMEOUT = 1.0
"""Seconds for which a service manager that does not read is waited for."""

READY = "READY=1"


def reloading(monotonic_ns: int) -> str:
    """The state while a new configuration is read; `READY` follows. The clock is `time.monotonic_ns`."""
    return f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns // 1000}"


def stopping(at_most: float) -> str:
    """The state of draining, which takes ``at_most`` seconds; TimeoutStopSec= of the unit may be less."""
    return f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(at_most * 1_000_000)}"


def status(text: str) -> str:
    """One line for people, as ``systemctl status`` shows it."""
    return "STATUS=" + " ".join(text.split())


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Send lines of ``NAME=value`` to the socket in NOTIFY_SOCKET. Does nothing without one, never raises."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):
        address = "\0" + address[1:]  # abstract, unix(7)
    elif not address.startswith("/"):
        return
    # ValueError: a NUL in the path. OSError: nobody is there, or the address is too long.
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendto(state.encode("utf-8", "replace"), socket.MSG_NOSIGNAL, address)
