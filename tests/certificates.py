"""Certificates and keys for tests, made on the spot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ec_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key(bits: int) -> Key:
    return rsa.generate_private_key(65537, bits)


def certificate(key: Key, name: str = "proxy.example", ends: datetime | None = None) -> bytes:
    """A self-signed certificate as somebody else would make it, in PEM form."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ends = ends or datetime.now(UTC) + timedelta(days=90)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    )
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(ends - timedelta(days=90)).not_valid_after(ends)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private_key(key: Key, password: bytes | None = None, *, traditional: bool = False) -> bytes:
    form = serialization.PrivateFormat
    return key.private_bytes(
        serialization.Encoding.PEM,
        form.TraditionalOpenSSL if traditional else form.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


def write_pair(folder: Path, name: str, key: Key) -> tuple[Path, Path]:
    """``NAME.crt`` and ``NAME.key`` in the folder."""
    files = folder / f"{name}.crt", folder / f"{name}.key"
    files[0].write_bytes(certificate(key))
    files[1].write_bytes(private_key(key))
    return files
