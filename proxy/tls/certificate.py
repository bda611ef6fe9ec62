"""What a certificate says of itself. Read without ``cryptography``, which would cost every start 9 MB."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


@dataclass(frozen=True, slots=True)
class Certificate:
    """The fields of RFC 5280 section 4.1 that we need; the names are DER."""

    issuer: bytes
    subject: bytes
    not_after: datetime


def certificate_expiry(path: Path) -> datetime:
    """When the first certificate of a PEM file ends, in UTC.

    Raises OSError where the file cannot be read, ValueError where it holds no certificate.
    """
    return read_certificate(path).not_after


def read_certificate(path: Path) -> Certificate:
    """The first certificate of a PEM file. Raises OSError and ValueError."""
    block = _PEM.search(path.read_text("ascii", "replace"))
    if block is None:
        raise ValueError(f"{path} holds no certificate in PEM form")
    try:
        return _parse(ssl.PEM_cert_to_DER_cert(block[0]))
    except (ValueError, IndexError):
        raise ValueError(f"{path} holds no readable certificate") from None


def _parse(der: bytes) -> Certificate:
    ((_, certificate),) = _elements(der)
    fields = _elements(_elements(certificate)[0][1])
    if fields[0][0] == _VERSION:  # the oldest certificates have none
        del fields[0]
    _serial, _signature, (_, issuer), (_, validity), (_, subject) = fields[:5]
    tag, end = _elements(validity)[1]
    text = end.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, up to 2049
        text = ("19" if text >= "50" else "20") + text
    return Certificate(issuer, subject, datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC))


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element in a row (X.690 section 8.1). Raises ValueError and IndexError."""
    elements: list[tuple[int, bytes]] = []
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:  # the length of the length
            octets = length & 0x7F
            length = int.from_bytes(der[at : at + octets])
            at += octets
        if at + length > len(der):
            raise ValueError("the DER ends early")
        elements.append((tag, der[at : at + length]))
        at += length
    return elements
