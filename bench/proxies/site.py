"""What a proxy is given to be started, and what it gives once it is ready."""

from __future__ import annotations

import binascii
import secrets
import socket
import string
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.load.target import Target

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True)
class Site:
    """One start of one proxy."""

    directory: Path  # its own and empty; gone afterwards
    core: int
    upstream_port: int
    tls: bool
    certificate: Path
    private_key: Path
    client_ca: Path  # who could sign certificates of clients


@dataclass(frozen=True)
class Running:
    """A proxy that answers."""

    pid: int  # the process whose CPU and memory count, with its children
    target: Target
    limited_key: str = ""  # may use some models only, so that every body is parsed
    free_key: str = ""  # may use every model, those in the cloud too, so that no body is looked at


def make_key() -> str:
    """A well-formed key, checksum right, that no store knows: `oap_<id>_<secret><CRC-32>` in base62."""
    body = "oap_" + "".join(secrets.choice(_DIGITS) for _ in range(10)) + "_"
    body += "".join(secrets.choice(_DIGITS) for _ in range(43))
    checksum, digits = binascii.crc32(body.encode()), ""
    for _ in range(6):
        checksum, digit = divmod(checksum, 62)
        digits = _DIGITS[digit] + digits
    return body + digits


def status_of(target: Target) -> int:
    """The status of one small GET; 0 where nobody answers."""
    with suppress(OSError), target.connect() as sock:
        sock.sendall(target.head("GET", "/api/version"))
        return int(sock.recv(65_536)[9:12] or 0)
    return 0


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
