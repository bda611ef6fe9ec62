"""Certificates and keys for tests, made on the spot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

PEM = serialization.Encoding.PEM
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ec_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key(bits: int) -> Key:
    return rsa.generate_private_key(65537, bits)


def certificate(key: Key, name: str = "proxy.example", ends: datetime | None = None) -> bytes:
    """A self-signed certificate as somebody else would make it, in PEM form."""
    return _builder(_named(name), _named(name), key, ends).sign(key, hashes.SHA256()).public_bytes(PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, ends: datetime | None
) -> x509.CertificateBuilder:
    """Valid for 90 days up to ``ends``, which is 90 days from now where it is None."""
    ends = ends or datetime.now(UTC) + timedelta(days=90)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(ends - timedelta(days=90)).not_valid_after(ends)


class Authority:
    """Who signs certificates: a root, or below ``parent``. Its own is ``certificate``, in PEM form."""

    def __init__(
        self, name: str = "Clients", parent: Authority | None = None, ends: datetime | None = None
    ) -> None:
        self.key, self.name = ec_key(), _named(name)
        above = parent or self
        no_more = (False,) * 5
        usage = x509.KeyUsage(
            *no_more, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        builder = _builder(self.name, above.name, self.key, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=True).add_extension(identifier, critical=False)
        self.certificate = builder.sign(above.key, hashes.SHA256()).public_bytes(PEM)

    def issue(
        self,
        subject: str | x509.Name,
        key: Key,
        ends: datetime | None = None,
        purpose: ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> bytes:
        """A certificate, in PEM form, for a subject of this CN, or of whatever a name says."""
        subject = _named(subject) if isinstance(subject, str) else subject
        builder = _builder(subject, self.name, key, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM)

    def write_client(self, folder: Path, name: str, ends: datetime | None = None) -> tuple[Path, Path]:
        """``NAME.crt`` and ``NAME.key`` in the folder, of a client with this CN."""
        key = ec_key()
        return _write(folder, name, self.issue(name, key, ends), key)


def private_key(key: Key, password: bytes | None = None, *, traditional: bool = False) -> bytes:
    form = serialization.PrivateFormat
    return key.private_bytes(
        PEM,
        form.TraditionalOpenSSL if traditional else form.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


def public_key(key: Key) -> bytes:
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def write_pair(folder: Path, name: str, key: Key) -> tuple[Path, Path]:
    """``NAME.crt`` and ``NAME.key`` in the folder."""
    return _write(folder, name, certificate(key), key)


def _write(folder: Path, name: str, certificate: bytes, key: Key) -> tuple[Path, Path]:
    files = folder / f"{name}.crt", folder / f"{name}.key"
    files[0].write_bytes(certificate)
    files[1].write_bytes(private_key(key))
    return files
