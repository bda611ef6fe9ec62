"""Whether the proxy runs with this configuration, and who else has its ports. `judge…` is pure."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, NamedTuple

import httpx

from proxy.config import Config
from proxy.config.values import Address
from proxy.doctor.bounded import in_thread
from proxy.doctor.findings import Finding, error, note, ok, warning

TIMEOUT = 3.0
"""Seconds for a connection and its first answer."""

_LARGEST_HEAD = 16 * 1024


class State(Enum):
    NOBODY = auto()
    """Nothing listens there."""
    SILENT = auto()
    """A connection opens, and nothing that could be ours comes."""
    FOREIGN = auto()
    """Another server answers."""
    CLOSED = auto()
    """TLS is spoken, and without a certificate of a client nobody gets on."""
    PROXY = auto()


class Seen(NamedTuple):
    """``certificate`` is in DER; ``protocol`` is what ALPN has chosen."""

    state: State
    certificate: bytes | None = None
    protocol: str | None = None


def near(address: Address) -> Address:
    """Where this machine reaches a listener of its own."""
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)


async def ask_public(address: Address, *, tls: bool, closed: bool = False) -> Seen:
    """Ask for /, without a credential. Every answer of the proxy has an X-Request-Id.

    ``closed`` says that clients need a certificate: then a server that hangs up is what we look for.
    """
    options: dict[str, Any] = {}
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is compared with the file
        context.set_alpn_protocols(["h2", "http/1.1"])
        options = {"ssl": context, "server_hostname": "localhost"}
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(address.host, address.port, **options)
    except (TimeoutError, ssl.SSLError, ConnectionResetError, EOFError):
        return Seen(State.SILENT)
    except OSError:
        return Seen(State.NOBODY)
    connection = writer.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True) if connection else None
    protocol = connection.selected_alpn_protocol() if connection else None
    try:
        if closed and await _hangs_up(reader):
            return Seen(State.CLOSED, certificate, protocol)
        state = State.SILENT
        async with asyncio.timeout(TIMEOUT):
            writer.write(b"HEAD / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % _host(address))
            head = await reader.read(_LARGEST_HEAD)
            if head.startswith(b"HTTP/1.1 "):
                state = State.PROXY if b"\r\nx-request-id:" in head.lower() else State.FOREIGN
    except (TimeoutError, OSError):
        state = State.SILENT
    finally:
        writer.transport.abort()
    return Seen(state, certificate, protocol)


async def _hangs_up(reader: asyncio.StreamReader) -> bool:
    """Before a word of ours: in TLS 1.3 a server refuses only after our side of the handshake has ended."""
    try:
        async with asyncio.timeout(TIMEOUT / 5):
            return not await reader.read(1)
    except TimeoutError:
        return False
    except OSError:
        return True


def _host(address: Address) -> bytes:
    return str(address).encode("ascii")


def try_to_bind(address: Address) -> int:
    """The errno of listening there, 0 where it works; nothing is left behind. Raises OSError for a name."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(where)
        except OSError as fault:
            return fault.errno or errno.EIO
    return 0


def judge_public(
    seen: Seen, address: Address, file: bytes | None, *, tls: bool, bind: int
) -> Iterator[Finding]:
    """``file`` is the certificate of the configuration, where there is one; ``bind`` is an errno."""
    match seen.state:
        case State.NOBODY:
            yield from judge_bind(bind, "listen.address", address)
            if bind == 0:
                yield warning(
                    "proxy_not_running",
                    f"nothing listens on {address}",
                    "start it with 'ollama-auth-proxy serve', then ask again: more can be seen while it runs",
                )
            return
        case State.SILENT:
            expected = "TLS" if tls else "HTTP"
            yield error(
                "port_taken",
                f"what listens on {address} does not answer {expected} as this proxy does",
                _end_it(address, "listen.address")
                + "; if it is the proxy, it runs with another tls.mode: restart it",
            )
            return
        case State.FOREIGN:
            yield error(
                "port_taken",
                f"another server than this proxy answers on {address}",
                _end_it(address, "listen.address"),
            )
            return
        case State.CLOSED:
            yield note(
                "proxy_asks_for_certificate",
                f"{address} serves only clients with a certificate, so no more was asked there",
            )
        case State.PROXY:
            yield ok("proxy_running", f"the proxy answers on {address}")
    if file is None:
        return
    if seen.certificate != file:
        yield warning(
            "certificate_not_served",
            f"{address} serves another certificate than the one in tls.certificate",
            "the proxy takes a new file over within 10 seconds, and its log says why where it cannot: mend "
            "that, then reload (SIGHUP) or restart; else something stands between",
        )
    else:
        yield ok("certificate_served", f"{address} serves the certificate in tls.certificate")
    if seen.protocol != "http/1.1":
        yield warning(
            "protocol_not_ours",
            f"{address} chose {seen.protocol or 'no protocol'} in ALPN, and this proxy chooses http/1.1",
            "something stands between: find what ends TLS there",
        )


def judge_bind(bind: int, option: str, address: Address) -> Iterator[Finding]:
    match bind:
        case 0:
            pass
        case errno.EACCES | errno.EPERM:
            yield error(
                "port_not_allowed",
                f"this user may not listen on port {address.port}",
                f"write a port from 1024 on in {option}, or give the service CAP_NET_BIND_SERVICE",
            )
        case errno.EADDRNOTAVAIL:
            yield error(
                "address_not_here",
                f"{address.host} is no address of this machine",
                f'write one that is in {option}, or "0.0.0.0:{address.port}" for all of them',
            )
        case errno.EADDRINUSE:
            yield error(
                "port_taken",
                f"another program has {address}, or the same port of one address of this machine",
                _end_it(address, option),
            )
        case _:
            yield error(
                "port_not_allowed",
                f"{address} cannot be listened on ({errno.errorcode.get(bind, bind)})",
                f"write another address in {option}",
            )


def _end_it(address: Address, option: str) -> str:
    return f"see what it is (ss -ltnp 'sport = :{address.port}'): end it, or write another {option}"


class OpsSeen(NamedTuple):
    """``document`` is what /readyz answered, None where there was no answer of ours."""

    reached: bool
    document: dict[str, Any] | None = None


async def ask_ops(address: Address) -> OpsSeen:
    try:
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=TIMEOUT) as client:
            document = (await client.get(f"http://{near(address)}/readyz")).json()
    except httpx.ConnectError:
        return OpsSeen(False)
    except (httpx.HTTPError, ValueError):
        return OpsSeen(True)
    ours = isinstance(document, dict) and isinstance(document.get("checks"), dict) and "status" in document
    return OpsSeen(True, document if ours else None)


def judge_ops(seen: OpsSeen, address: Address, *, running: bool, bind: int) -> Iterator[Finding]:
    if not seen.reached:
        if running:
            yield error(
                "ops_not_reachable",
                f"the proxy runs, and its metrics and health do not answer on {address}",
                "it runs with another ops.address: restart it",
            )
        else:
            yield from judge_bind(bind, "ops.address", address)
        return
    if seen.document is None:
        yield error(
            "port_taken",
            f"another server than this proxy answers on {address}",
            _end_it(address, "ops.address"),
        )
        return
    bad = {
        name: check
        for name, check in seen.document["checks"].items()
        if isinstance(check, dict) and check.get("status") != "ok"
    }
    if not bad:
        yield ok("proxy_ready", f"/readyz on {address} says that it can serve")
        return
    why = "; ".join(f"{name}: {check.get('reason', check.get('status'))}" for name, check in bad.items())
    say = error if seen.document["status"] == "failing" else warning
    yield say("proxy_not_ready", f"/readyz on {address} says {seen.document['status']}: {why}", "mend these")


async def check(config: Config, certificate: bytes | None) -> tuple[list[Finding], bool]:
    """The findings, and whether the proxy runs."""
    listen, ops = config.listen.address, config.ops.address
    findings: list[Finding] = []
    running = False
    if listen.port == 0:
        findings.append(
            note("port_unknown", "listen.address has port 0, any free one: nothing can be asked there")
        )
    else:
        bind = await in_thread(lambda: _bind(listen), TIMEOUT)
        away = bind == errno.EADDRNOTAVAIL
        tls = config.tls.mode != "off"
        seen = (
            Seen(State.NOBODY)
            if away
            else await ask_public(near(listen), tls=tls, closed=config.tls.client_auth == "required")
        )
        running = seen.state in (State.PROXY, State.CLOSED)
        findings += judge_public(seen, listen, certificate, tls=tls, bind=bind)
    if ops.port == 0:
        findings.append(
            note("port_unknown", "ops.address has port 0, any free one: nothing can be asked there")
        )
    else:
        bind = await in_thread(lambda: _bind(ops), TIMEOUT)
        answer = OpsSeen(False) if bind == errno.EADDRNOTAVAIL else await ask_ops(ops)
        findings += judge_ops(answer, ops, running=running, bind=bind)
    return findings, running


def _bind(address: Address) -> int:
    try:
        return try_to_bind(address)
    except OSError:  # the name does not lead anywhere
        return errno.EADDRNOTAVAIL
