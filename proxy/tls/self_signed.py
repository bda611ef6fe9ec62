"""The certificate that we make ourselves where nobody brought one: ECDSA P-256, for this machine's names."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from proxy.tls.certificate import read_certificate
from proxy.tls.context import Problem, check_pair

VALID_FOR = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(hours=1)
OUR_NAME = "ollama-auth-proxy self-signed"  # by this subject we know a certificate that we may replace


class ForeignFileError(Exception):
    """A certificate or a key that we would have to replace, and that we did not make."""


def ensure_self_signed(certificate: Path, private_key: Path, now: datetime) -> bool:
    """Make the pair where it is missing, does not fit or ends within 30 days; whether it was made.

    The key is readable by its owner alone from its first byte on. Raises ForeignFileError, and OSError
    where the folders cannot be written.
    """
    for folder in {certificate.parent, private_key.parent}:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone_in(certificate.parent):
        for problem in check_self_signed(certificate, private_key):
            raise ForeignFileError(f"{problem.wrong}; {problem.right}")
        if not check_pair(certificate, private_key) and not _ends_soon(certificate, now):
            return False
        from proxy.tls import new_pair  # imports cryptography, 9 MB that most starts do without

        made = new_pair.make(OUR_NAME, now - CLOCK_SKEW, now - CLOCK_SKEW + VALID_FOR)
        # The certificate first: alone, or beside a key of another, it is one of ours and is made anew.
        _replace(certificate, made.certificate, 0o644)
        _replace(private_key, made.private_key, 0o600)
    return True


def _ends_soon(certificate: Path, now: datetime) -> bool:
    return read_certificate(certificate).not_after - now <= RENEW_BEFORE


def check_self_signed(certificate: Path, private_key: Path) -> list[Problem]:
    """Why we must not make a pair here; empty where we may, or where there is one of ours."""
    right = 'write mode = "files" to use your own, or name another place'
    if not os.path.exists(certificate):  # Path.exists raises where a folder above is closed to us
        if os.path.exists(private_key):
            return [Problem("private_key", f"{private_key} is there without {certificate}", right)]
        return []
    try:
        found = read_certificate(certificate)
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        return [Problem("certificate", f"{certificate} cannot be read: {reason}", right)]
    except ValueError as error:
        return [Problem("certificate", str(error), right)]
    if found.issuer != found.subject or OUR_NAME.encode() not in found.subject:
        return [Problem("certificate", f"{certificate} was not made by this proxy", right)]
    return []


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time: two at once would leave the certificate of one beside the key of the other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, content: bytes, mode: int) -> None:
    """Put the whole file in its place at once, with its mode from the first byte on."""
    new = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
