"""What the certificate says of itself: chain, dates and names. `judge…` is pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from proxy.config import Config
from proxy.config.values import is_loopback
from proxy.doctor import handshake
from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.tls.machine import addresses, host_names

if TYPE_CHECKING:
    from cryptography import x509

DAY = 86400
SOON, VERY_SOON = 30, 7
"""Days. Certificates of a few weeks are renewed when a third of their time is left, which is well."""

WILDCARDS = ("0.0.0.0", "::")


class Certificate(NamedTuple):
    """Times are unix seconds. ``names`` are its DNS names and addresses, the only ones clients look at."""

    subject: str
    issuer: str
    begins: float
    ends: float
    names: tuple[str, ...]
    signed_by_next: bool
    """Whether the one below it in the file has signed it; of the last one, whether it signed itself."""


def read_chain(path: Path) -> list[Certificate]:
    """All certificates of a PEM file, in order. Raises OSError and ValueError."""
    from cryptography import x509  # costs 0.1 s

    chain = x509.load_pem_x509_certificates(path.read_bytes())
    return [_certificate(one, below) for one, below in zip(chain, [*chain[1:], chain[-1]], strict=True)]


def _certificate(one: x509.Certificate, below: x509.Certificate) -> Certificate:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        one.verify_directly_issued_by(below)
        signed = True
    except (ValueError, TypeError, InvalidSignature):
        signed = False
    try:
        alternatives = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [
            *alternatives.get_values_for_type(x509.DNSName),
            *map(str, alternatives.get_values_for_type(x509.IPAddress)),
        ]
    except (x509.ExtensionNotFound, ValueError):
        names = []
    return Certificate(
        one.subject.rfc4514_string() or "(no subject)",
        one.issuer.rfc4514_string(),
        one.not_valid_before_utc.timestamp(),
        one.not_valid_after_utc.timestamp(),
        tuple(names),
        signed,
    )


def in_der(path: Path | None) -> bytes | None:
    """The first certificate of a PEM file, as a client gets it; None where it cannot be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return (
            x509.load_pem_x509_certificates(path.read_bytes())[0].public_bytes(Encoding.DER) if path else None
        )
    except (OSError, ValueError):
        return None


def check(config: Config, now: float) -> list[Finding]:
    """Blocking."""
    tls = config.tls
    findings: list[Finding] = []
    if tls.client_ca is not None:
        authorities = read_chain(tls.client_ca)
        findings += judge_dates(authorities, now, f"tls.client_ca ({tls.client_ca})", renews=False)
    if tls.certificate is None or tls.private_key is None:
        return [note("tls_off", "TLS is off, so there is no certificate to look at"), *findings]
    if not (tls.certificate.exists() and tls.private_key.exists()):  # in mode "files" that is a fault
        return [
            note(
                "certificate_missing", f"{tls.certificate} and its key are not there yet; 'serve' makes them"
            ),
            *findings,
        ]
    place, ours = f"tls.certificate ({tls.certificate})", tls.mode == "self-signed"
    chain = read_chain(tls.certificate)
    machine = {*host_names(), *map(str, addresses())}
    code, reason = handshake.verify(tls.certificate, tls.private_key)
    return [
        judge_trust(code, reason, chain, place),
        *judge_order(chain, place),
        *judge_dates(chain, now, place, renews=ours),
        *judge_names(chain[0], config.listen.address.host, machine, ours=ours),
        *findings,
    ]


def judge_dates(chain: Sequence[Certificate], now: float, place: str, *, renews: bool) -> Iterator[Finding]:
    """``renews`` says that the proxy makes a new one by itself, before it ends."""
    good = True
    for one in chain:
        name = f"{one.subject} in {place}"
        left = (one.ends - now) / DAY
        soon = one.ends - now < (one.ends - one.begins) / 3
        if one.begins > now:
            good = False
            yield error(
                "certificate_not_yet_valid",
                f"{name} holds only from {_date(one.begins)} on, and it is {_date(now)}",
                "set the clock of this machine (timedatectl), or get a certificate that holds now",
            )
        elif renews and left <= SOON:
            good = False
            yield note("certificate_ends_soon", f"{name} ends at {_date(one.ends)}; 'serve' makes a new one")
        elif left <= 0:
            good = False
            yield error(
                "certificate_ended",
                f"{name} ended at {_date(one.ends)}",
                f"renew it, and write it to {place}",
            )
        elif left <= SOON and soon:
            good = False
            say = error if left <= VERY_SOON else warning
            yield say(
                "certificate_ends_soon",
                f"{name} ends in {left:.0f} days, at {_date(one.ends)}",
                f"see why it was not renewed, renew it, and write it to {place}; the proxy takes it over",
            )
    if good and chain:
        yield ok("certificate_dates", f"{place} holds until {_date(min(one.ends for one in chain))}")


def judge_order(chain: Sequence[Certificate], place: str) -> Iterator[Finding]:
    """RFC 5246 section 7.4.2: each certificate certifies the one before it."""
    for number, (one, below) in enumerate(pairwise(chain), 1):
        if not one.signed_by_next:
            yield warning(
                "chain_order",
                f"in {place}, certificate {number + 1} ({below.subject}) has not signed certificate {number} "
                f"({one.subject}), which is of {one.issuer}",
                "put the server's certificate first, then that of its issuer, and so on; leave out others",
            )
            return


def judge_names(server: Certificate, host: str, machine: Collection[str], *, ours: bool) -> Iterator[Finding]:
    """``host`` is that of listen.address, ``machine`` the names and addresses of this machine.

    ``ours`` says that the proxy makes the certificate.
    """
    again = "remove the certificate and its key, and restart: the proxy makes new ones for the names of today"
    if not server.names:
        yield error(
            "certificate_without_names",
            "the certificate has no subjectAltName: clients accept no other names, so they refuse it",
            "get one that has the names that clients connect to as subjectAltName",
        )
        return
    names = ", ".join(server.names[:8]) + (", …" if len(server.names) > 8 else "")
    if host not in WILDCARDS:
        if _covers(server.names, host):
            yield ok("certificate_names", f"the certificate is for {names}")
            return
        say = note if is_loopback(host) else warning
        yield say(
            "certificate_names_differ",
            f"the proxy listens on {host}, and the certificate is for {names}",
            again if ours else f"connect by a name in it, or get one that has {host} too",
        )
    elif any(_covers(server.names, name) for name in machine if not is_loopback(name)):
        yield ok("certificate_names", f"the certificate is for {names}")
    else:
        yield note(
            "certificate_names_differ",
            f"the certificate is for {names}, which is none of the names that this machine knows of itself",
            again if ours else "clients must connect by one of these names, so it must lead to this machine",
        )


def _covers(names: Collection[str], host: str) -> bool:
    """RFC 9525 section 6: a wildcard stands for one label, and for no address."""
    try:
        address = ip_address(host)
    except ValueError:
        above = host.lower().partition(".")[2]
        return any(name.lower() == host.lower() or (above and name.lower() == f"*.{above}") for name in names)
    return str(address) in names


def judge_trust(code: int | None, reason: str, chain: Sequence[Certificate], place: str) -> Finding:
    """``code`` is what OpenSSL says of the chain (X509_V_ERR_…, 0 is well), with its words for it.

    None means that this machine trusts no authority at all.
    """
    last = chain[-1]
    match code:
        case 0:
            return ok("certificate_chain", "an authority that this machine trusts has signed the certificate")
        case 18:  # DEPTH_ZERO_SELF_SIGNED_CERT
            return note(
                "self_signed",
                "the certificate is self-signed: clients refuse it until they are told to trust it",
                f"give {place} to the clients, or get a certificate of an authority that they trust",
            )
        case None:
            return note(
                "chain_unknown",
                "this machine trusts no authority, so it cannot tell whether clients will",
                "install ca-certificates, or try from a client: openssl s_client -connect HOST:PORT",
            )
        case 26:  # INVALID_PURPOSE
            return error(
                "certificate_purpose",
                "the certificate is not for servers (extendedKeyUsage), so clients refuse it",
                "get one for serverAuth",
            )
        case 20 | 21 if len(chain) == 1:  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY, UNABLE_TO_VERIFY_LEAF_SIGNATURE
            return warning(
                "chain_incomplete",
                f"{place} holds one certificate alone, of {last.issuer}, which this machine does not trust",
                "append the certificate of that intermediate authority (of ACME clients, use fullchain.pem); "
                "if it is a private root, let this machine and the clients trust it",
            )
        case 19 | 20 | 21:  # SELF_SIGNED_CERT_IN_CHAIN too
            return note(
                "private_authority",
                f"the chain leads to {last.issuer}, which this machine does not trust",
                "where that is your own authority, let the clients trust it; else append what is missing to"
                f" {place}",
            )
    return error(
        "chain_broken", f"OpenSSL refuses the chain in {place}: {reason}", "get it anew from its authority"
    )


def _date(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
