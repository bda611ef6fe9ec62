"""TLS of the public listener: the context, checks of what it is made from, and the self-signed pair."""

from __future__ import annotations

from proxy.tls.certificate import certificate_expiry
from proxy.tls.context import Problem, check_client_ca, check_pair, holds_certificates, server_context
from proxy.tls.self_signed import ForeignFileError, check_self_signed, ensure_self_signed

__all__ = [
    "ForeignFileError",
    "Problem",
    "certificate_expiry",
    "check_client_ca",
    "check_pair",
    "check_self_signed",
    "ensure_self_signed",
    "holds_certificates",
    "server_context",
]
