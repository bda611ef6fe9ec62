"""What a client's OpenSSL makes of a certificate: a handshake with ourselves, in memory."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from proxy.tls import server_context

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, for which Python has no name: the dates are judged by themselves."""


class Verdict(NamedTuple):
    """X509_V_ERR_…, 0 where all is well, None where no authority is trusted; and OpenSSL's words for it."""

    code: int | None
    reason: str = ""


def verify(certificate: Path, private_key: Path) -> Verdict:
    """Whether clients that trust what this machine trusts accept the chain. Raises OSError."""
    trusted = ssl.create_default_context()
    trusted.check_hostname = False
    trusted.verify_flags |= NO_CHECK_TIME
    server = server_context(certificate, private_key)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = trusted.wrap_bio(to_client, to_server)
    for _ in range(4):  # TLS 1.3 takes two turns
        try:
            theirs.do_handshake()
            return Verdict(0)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as fault:
            trusts_any = trusted.cert_store_stats()["x509_ca"] or _has_trusted_folder()
            self_signed = fault.verify_code == 18
            return Verdict(fault.verify_code if trusts_any or self_signed else None, fault.verify_message)
        with suppress(ssl.SSLWantReadError):
            ours.do_handshake()
    raise OSError("the handshake does not end")


def _has_trusted_folder() -> bool:
    """OpenSSL reads authorities of a folder only when it needs them, so they are not counted."""
    folder = ssl.get_default_verify_paths().capath
    return folder is not None and any(name.endswith(".0") for name in os.listdir(folder))
