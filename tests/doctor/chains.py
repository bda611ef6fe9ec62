"""Certificates of servers: with names, dates and issuers as a test needs them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ..certificates import PEM, Authority, Key, ec_key, private_key


@dataclass
class Server:
    """``begins`` and ``ends`` are in days from now. Without an issuer it signs itself."""

    names: Sequence[str] = ("localhost", "127.0.0.1")
    issuer: Authority | None = None
    begins: float = -10.0
    ends: float = 200.0
    purpose: ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    key: Key = field(default_factory=ec_key)

    def certificate(self) -> bytes:
        now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.issuer.name if self.issuer else name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=self.begins))
            .not_valid_after(now + timedelta(days=self.ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([self.purpose]), critical=False)
        )
        if self.names:
            names = x509.SubjectAlternativeName([_general(name) for name in self.names])
            builder = builder.add_extension(names, critical=False)
        signing = self.issuer.key if self.issuer else self.key
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return builder.sign(signing, hashes.SHA256()).public_bytes(PEM)

    def write(self, folder: Path, *above: bytes) -> dict[str, str]:
        """The pair, with certificates of authorities below it; returns the table of the configuration."""
        folder.mkdir(exist_ok=True)
        certificate, key = folder / "server.crt", folder / "server.key"
        certificate.write_bytes(b"".join([self.certificate(), *above]))
        key.write_bytes(private_key(self.key))
        key.chmod(0o600)
        return {"mode": "files", "certificate": str(certificate), "private_key": str(key)}


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def context(tls: dict[str, str]) -> ssl.SSLContext:
    """Of a server with this pair."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(tls["certificate"], tls["private_key"])
    return made
