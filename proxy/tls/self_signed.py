"""The certificate that we make ourselves where nobody brought one: ECDSA P-256, for this machine's names."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from proxy.tls.certificate import read_certificate
from proxy.tls.context import Problem, check_pair

VALID_FOR = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(hours=1)
OUR_NAME = "ollama-auth-proxy self-signed"  # by this subject we know a certificate that we may replace

_DER_SEQUENCE = b"\x30"  # begins every key in DER (X.690 section 8.9)
_RIGHT = 'write mode = "files" to use your own, or name another place'


class ForeignFileError(Exception):
    """A certificate or a key that we would have to replace, and that we did not make."""


def ensure_self_signed(certificate: Path, private_key: Path, now: datetime) -> bool:
    """Make the pair where it is missing, does not fit or ends within 30 days; whether there is a new one.

    A missing folder is made, its parents are not. The key is readable by its owner alone from its first byte
    on. Raises ForeignFileError, and OSError where the folders cannot be written.
    """
    for folder in {certificate.parent, private_key.parent}:
        folder.mkdir(mode=0o700, exist_ok=True)
    with _alone_in(certificate.parent):
        for problem in check_self_signed(certificate, private_key):
            raise ForeignFileError(f"{problem.wrong}; {problem.right}")
        finished = _is_half_renamed(certificate, private_key)
        if finished:
            _rename(certificate)
        if not check_pair(certificate, private_key) and not _ends_soon(certificate, now):
            return finished
        from proxy.tls import new_pair  # imports cryptography, 9 MB that most starts do without

        made = new_pair.make(OUR_NAME, now - CLOCK_SKEW, now - CLOCK_SKEW + VALID_FOR)
        try:
            _write_new(certificate, made.certificate, 0o644)
            _write_new(private_key, made.private_key, 0o600)
            # The key first: where we end between the two, the new certificate still tells that it is ours.
            _rename(private_key)
        except OSError:
            for file in (certificate, private_key):
                with suppress(OSError):
                    _new(file).unlink()
            raise
        _rename(certificate)
    return True


def _ends_soon(certificate: Path, now: datetime) -> bool:
    return read_certificate(certificate).not_after - now <= RENEW_BEFORE


def check_self_signed(certificate: Path, private_key: Path) -> list[Problem]:
    """Why we must not make a pair here; empty where we may, or where there is one of ours."""
    problem = _foreign_certificate(certificate) or _foreign_key(certificate, private_key)
    return [problem] if problem else []


def _foreign_certificate(certificate: Path) -> Problem | None:
    if not os.path.exists(certificate):  # Path.exists raises where a folder above is closed to us
        return None
    try:
        found = read_certificate(certificate)
    except OSError as error:
        return Problem("certificate", _unreadable(certificate, error), _RIGHT)
    except ValueError as error:
        return Problem("certificate", str(error), _RIGHT)
    if found.issuer != found.subject or OUR_NAME.encode() not in found.subject:
        return Problem("certificate", f"{certificate} was not made by this proxy", _RIGHT)
    return None


def _foreign_key(certificate: Path, private_key: Path) -> Problem | None:
    """A key that is not that of our certificate is somebody's; what is no key at all may be replaced."""
    if private_key == certificate:
        return Problem(
            "private_key", f"{private_key} is the file of the certificate too", "name another file"
        )
    if not os.path.exists(private_key) or _is_half_renamed(certificate, private_key):
        return None
    if not os.path.exists(certificate):
        return Problem("private_key", f"{private_key} is there without {certificate}", _RIGHT)
    try:
        content = private_key.read_bytes()
    except OSError as error:
        return Problem("private_key", _unreadable(private_key, error), _RIGHT)
    is_key = b"PRIVATE KEY" in content or content.startswith(_DER_SEQUENCE)
    if is_key and check_pair(certificate, private_key):
        return Problem("private_key", f"{private_key} is not the key of {certificate}", _RIGHT)
    return None


def _is_half_renamed(certificate: Path, private_key: Path) -> bool:
    """Whether a run of ours ended after it had put the key in its place, and before the certificate."""
    new = _new(certificate)
    return os.path.exists(new) and _foreign_certificate(new) is None and not check_pair(new, private_key)


def _unreadable(file: Path, error: OSError) -> str:
    return f"{file} cannot be read: {(error.strerror or 'unknown error').lower()}"


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time: two at once would leave the certificate of one beside the key of the other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _new(file: Path) -> Path:
    """Where a file is written before it is put in its place, whole. One name, so that it is found again."""
    return file.with_name(f".{file.name}.new")


def _write_new(file: Path, content: bytes, mode: int) -> None:
    with _named(file):
        _new(file).unlink(missing_ok=True)  # of a run that ended before it had renamed anything
        descriptor = os.open(_new(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def _rename(file: Path) -> None:
    with _named(file):
        _new(file).replace(file)
    with suppress(OSError):  # not every file system can; it is for the order after a power failure
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Faults name the file that people know."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
