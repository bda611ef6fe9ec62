"""Whether Ollama can be reached beside the proxy, by whoever has no key. `judge` is pure."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

import httpx

from proxy.config.values import Address, UpstreamUrl
from proxy.doctor import processes
from proxy.doctor.bounded import in_thread
from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.tls.machine import addresses

TIMEOUT = 2.0
"""Seconds for each address; all are asked at once."""

IPAddress = IPv4Address | IPv6Address


class Seen(NamedTuple):
    """``here`` says that Ollama's address is one of this machine.

    ``bound`` are the addresses that something listens on with Ollama's port, other than loopback and the
    proxy; ``open`` are those where Ollama answered without a key, of ``asked`` ones.
    """

    here: bool
    asked: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def own_addresses(upstream: UpstreamUrl) -> tuple[bool, list[IPAddress]]:
    """Whether the upstream is this machine, and the addresses by which others reach it; blocking."""
    own = addresses()
    found: set[IPAddress] = set()
    with suppress(OSError):
        for *_, where in socket.getaddrinfo(upstream.host, upstream.port, type=socket.SOCK_STREAM):
            address = ip_address(str(where[0]).partition("%")[0])
            found.add(getattr(address, "ipv4_mapped", None) or address)
    here = any(address.is_loopback or address in own for address in found)
    return here, [address for address in own if not address.is_loopback]


def bound_widely(port: int, proxy: Address) -> list[str]:
    """Where something that is not the proxy listens on the port for others than this machine; blocking."""
    found = {
        str(socket.address)
        for socket in processes.listening(port)
        if not socket.address.is_loopback and (str(socket.address), port) != (proxy.host, proxy.port)
    }
    return sorted(found)


async def look(upstream: UpstreamUrl, proxy: Address, patience: float) -> Seen:
    """``patience`` is in seconds, for the look at this machine. Raises TimeoutError."""
    here, others = await in_thread(lambda: own_addresses(upstream), patience)
    if not here:
        return Seen(False)
    bound = await in_thread(lambda: bound_widely(upstream.port, proxy), patience)
    return Seen(True, tuple(map(str, others)), tuple(bound), tuple(await _ask(upstream, others)))


async def _ask(upstream: UpstreamUrl, others: Collection[IPAddress]) -> list[str]:
    """At which of these addresses Ollama answers without a key."""
    answers = await asyncio.gather(*(_is_ollama(upstream, address) for address in others))
    return [str(address) for address, answered in zip(others, answers, strict=True) if answered]


async def _is_ollama(upstream: UpstreamUrl, address: IPAddress) -> bool:
    url = f"{upstream.scheme}://{Address(str(address), upstream.port)}/api/version"
    try:
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=TIMEOUT) as client:
            answer = (await client.get(url)).json()
    except (httpx.HTTPError, ValueError):
        return False
    return isinstance(answer, dict) and "version" in answer


def judge(seen: Seen, port: int) -> Iterator[Finding]:
    loopback = (
        f"start Ollama with OLLAMA_HOST=127.0.0.1:{port}; with Docker, publish no port of its container"
    )
    if not seen.here:
        yield note(
            "exposure_unknown",
            "Ollama is on another machine, or in another container: whether others reach it there without a "
            "key cannot be told from here",
            f"see there that port {port} is open to the proxy alone; better, run the proxy beside Ollama",
        )
        return
    if seen.bound:
        yield warning(
            "ollama_bound_widely",
            f"port {port} is bound to {', '.join(seen.bound)}, which is more than loopback",
            loopback,
        )
    if seen.open:
        yield error(
            "ollama_reachable_beside_us",
            f"Ollama answers without a key at {', '.join(str(Address(one, port)) for one in seen.open)}: "
            "whoever reaches this machine gets around the proxy",
            f"{loopback}; until then close port {port} in the firewall",
        )
    elif not seen.bound and seen.asked:
        yield ok("ollama_on_loopback", f"Ollama is on loopback alone; asked at {', '.join(seen.asked)}")
    elif not seen.bound:
        yield note(
            "exposure_unknown",
            "this machine knows no address of its own but loopback, so Ollama was asked at no other",
        )
