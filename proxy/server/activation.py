"""Listening sockets that systemd, or whoever starts the proxy like it, has opened already: sd_listen_fds(3).

The one who opened them keeps them, so what connects while the proxy restarts waits in the kernel's queue.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import MutableMapping
from contextlib import suppress

from proxy.server.listener import set_options

FIRST = 3
"""The descriptor of the first socket, SD_LISTEN_FDS_START; the others follow it."""

NAMES = ("public", "ops")

_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivationError(Exception):
    """What was passed cannot be served; the text names the fault and the fix."""


def sockets(environ: MutableMapping[str, str], pid: int) -> dict[str, socket.socket]:
    """The sockets by name, ``public`` and ``ops``; empty where none were passed to the process ``pid``.

    One socket without a name of its own is ``public``. Takes the variables out of ``environ``, so that
    child processes do not look for sockets that are not theirs. The sockets are left non-blocking, and
    close on exec.

    Raises ActivationError.
    """
    values = {name: environ.pop(name, "") for name in _VARIABLES}
    if values["LISTEN_PID"] != str(pid) or not values["LISTEN_FDS"]:
        return {}
    if not re.fullmatch(r"[0-9]{1,4}", values["LISTEN_FDS"]):
        raise ActivationError("LISTEN_FDS: this is not a number of sockets; it is for systemd to set")
    names = _names(values["LISTEN_FDNAMES"], int(values["LISTEN_FDS"]))
    found: dict[str, socket.socket] = {}
    try:
        for fd, name in enumerate(names, FIRST):
            if name in found:
                raise ActivationError(
                    f"two sockets named {name!r} were passed: leave one ListenStream= in each socket unit;"
                    " ListenStream=PORT alone takes both IPv4 and IPv6"
                )
            place = f"the socket {name!r} that was passed (descriptor {fd})"
            found[name] = _socket(fd, place)
            _check_and_set_up(found[name], place)
    except ActivationError:
        for sock in found.values():
            sock.close()
        raise
    return found


def _names(text: str, count: int) -> list[str]:
    """One for each socket. systemd names a socket after its unit where nobody else does."""
    names = text.split(":") if text else [""] * count
    if len(names) != count:
        raise ActivationError(
            f"LISTEN_FDNAMES: {len(names)} names for {count} sockets; write FileDescriptorName=public or"
            " FileDescriptorName=ops in each socket unit"
        )
    if count == 1 and (names[0] in ("", "unknown") or names[0].endswith(".socket")):
        return ["public"]
    for name in names:
        if name not in NAMES:
            raise ActivationError(
                f"a socket named {name[:60]!r} was passed, which nothing here listens on: write"
                " FileDescriptorName=public or FileDescriptorName=ops in its socket unit"
            )
    return names


def _socket(fd: int, place: str) -> socket.socket:
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            return socket.socket(fileno=fd)
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise ActivationError(f"{place} cannot be used: {reason}; LISTEN_FDS is for systemd to set") from None
    raise ActivationError(f"{place} is no socket: write ListenStream= in its socket unit")


def _check_and_set_up(sock: socket.socket, place: str) -> None:
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise ActivationError(
            f"{place} is not for TCP: write ListenStream=PORT or ListenStream=HOST:PORT in its socket unit"
        )
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ActivationError(
            f"{place} does not listen, or is a connection: write Accept=no in its socket unit"
        )
    sock.set_inheritable(False)
    sock.setblocking(False)
    with suppress(OSError):  # they make things better, and no more
        set_options(sock)
