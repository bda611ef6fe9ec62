"""The context of the public listener, and whether a certificate and a key make one."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal, NamedTuple


class Problem(NamedTuple):
    """What is wrong with one of the two files."""

    of: Literal["certificate", "private_key"]
    wrong: str
    right: str


def server_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with HTTP/1.1 only, said in ALPN (RFC 7301). Raises OSError (ssl.SSLError too)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificate, private_key)
    return context


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


def _read(of: Literal["certificate", "private_key"], file: Path, problems: list[Problem]) -> bytes | None:
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
