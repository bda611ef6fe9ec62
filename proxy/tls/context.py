"""The context of the public listener, and whether a certificate and a key make one."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal, NamedTuple


class Problem(NamedTuple):
    """What is wrong with one of the files."""

    of: Literal["certificate", "private_key", "client_ca"]
    wrong: str
    right: str


def server_context(
    certificate: Path, private_key: Path, client_ca: Path | None = None, required: bool = False
) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with HTTP/1.1 only, said in ALPN (RFC 7301). Raises OSError (ssl.SSLError too).

    With ``client_ca`` clients are asked for a certificate, of an authority in that PEM file and no other.
    One that does not hold ends the handshake; whether there has to be one is what ``required`` says.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificate, private_key)
    if client_ca is not None:
        _ask_for_certificates(context, client_ca, required)
    return context


def _ask_for_certificates(context: ssl.SSLContext, client_ca: Path, required: bool) -> None:
    """That a certificate is for clients (RFC 5280 section 4.2.1.12) OpenSSL sees to by itself."""
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    context.load_verify_locations(client_ca)
    # What stands in the file is trusted, and nothing else: an authority in the middle without its root too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # A session that is taken up again tells its certificate, but nobody looks whether it has ended since.
    # Of TLS 1.2 that cannot be turned off: it gives tickets for two hours, or else keeps sessions in memory.
    context.num_tickets = 0


def _load(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    # Without a password OpenSSL would ask for that of an encrypted key on the terminal, and wait.
    context.load_cert_chain(certificate, private_key, password="")


def check_pair(certificate: Path, private_key: Path) -> list[Problem]:
    """Why the two files cannot serve TLS; empty where they can."""
    problems: list[Problem] = []
    chain = _read("certificate", certificate, problems)
    key = _read("private_key", private_key, problems)
    if chain is not None:
        right = "name a PEM file with the certificate first and the intermediate ones below it"
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cafile=certificate)
        except OSError:
            problems.append(Problem("certificate", f"{certificate} holds no readable certificate", right))
    if key is not None and (b"BEGIN ENCRYPTED" in key or b"4,ENCRYPTED" in key):  # PKCS #8, and OpenSSL's own
        right = f"decrypt it: openssl pkey -in {private_key} -out NEW_FILE"
        problems.append(Problem("private_key", f"{private_key} is encrypted", right))
    if problems:
        return problems
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, private_key)
    except OSError as error:
        problems.append(_judge(getattr(error, "reason", None), certificate, private_key))
    return problems


def check_client_ca(client_ca: Path) -> list[Problem]:
    """Why the file cannot tell whose certificates clients may show; empty where it can."""
    problems: list[Problem] = []
    if _read("client_ca", client_ca, problems) is None:
        return problems
    right = "name a PEM file with the certificates of the authorities that sign those of clients"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(client_ca)
    except OSError:
        return [Problem("client_ca", f"{client_ca} holds no readable certificate", right)]
    held = context.cert_store_stats()
    if held["x509_ca"] < held["x509"]:
        problems.append(
            Problem("client_ca", f"{client_ca} holds a certificate that may not sign others", right)
        )
    if held["crl"]:
        wrong = f"{client_ca} holds a list of revoked certificates, which is not looked at"
        problems.append(Problem("client_ca", wrong, "remove the list, and revoke the keys of the same names"))
    return problems


def holds_certificates(file: Path) -> bool:
    """Whether a PEM file holds certificates, as one of trusted authorities does."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError:
        return False
    return True


def _read(
    of: Literal["certificate", "private_key", "client_ca"], file: Path, problems: list[Problem]
) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError as error:
        wrong = f"{file} cannot be read: {(error.strerror or 'unknown error').lower()}"
        problems.append(Problem(of, wrong, "name a PEM file that the user of the proxy may read"))
        return None


def _judge(reason: str | None, certificate: Path, private_key: Path) -> Problem:
    """Which file OpenSSL means, once the certificate is known to be one."""
    match reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH" | "NO_CERTIFICATE_ASSIGNED":
            right = "name the key of the certificate that stands first in its file"
            return Problem("private_key", f"{private_key} is not the key of {certificate}", right)
        case None:
            right = "name a PEM file with a private key"
            return Problem("private_key", f"{private_key} holds no readable private key", right)
        case _:  # EE_KEY_TOO_SMALL, for example
            wrong = f"OpenSSL refuses {certificate}: {reason.lower().replace('_', ' ')}"
            return Problem(
                "certificate", wrong, "use a stronger certificate: ECDSA P-256, or RSA of 2048 bits"
            )
