"""What the texts of a configuration mean. Pure.

Every function raises BadValueError, a ValueError that says what is wrong and what would be right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from proxy.config.fault import BadValueError
from proxy.policy import cors
from proxy.policy.routes import ROUTES, Scope

Network = IPv4Network | IPv6Network

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 36500 * 86400  # a hundred years: no date that is made of it overflows
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

# Nine digits are more than any option takes, and no reason for big-number arithmetic.
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_PORT = re.compile(r"[0-9]{1,5}")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_ROUTE = re.compile(r"([A-Z]+) (/[!-~]*)")  # RFC 9112 section 3: method, one space, target

HMAC = ("HS256", "HS384", "HS512")
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", *HMAC)

# Without those that stand for many paths: what is opened to everybody is named one by one.
_ROUTES = {
    f"{route.method} {route.path}": (route.method, route.path) for route in ROUTES if "{" not in route.path
}


def shown(text: str) -> str:
    """The text in quotes, on one line and not longer than a line has room for."""
    return f'"{text[:60]}…"' if len(text) > 60 else f'"{text}"'


def parse_duration(text: str) -> float:
    """Seconds: ``250ms``, ``10s``, ``5m``, ``24h``, ``90d``; a hundred years at most."""
    right = "write a whole number and its unit, ms, s, m, h or d, for example 250ms, 10s or 90d"
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadValueError(f"{shown(text)} is not a duration", right)
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST:
        raise BadValueError(f"{shown(text)} is more than a hundred years", "write 36500d at most")
    return seconds


def parse_size(text: str) -> int:
    """Bytes: ``512B``, ``64KiB``, ``10MiB``, ``1GiB``."""
    match = _SIZE.fullmatch(text)
    if match is None:
        right = "write a whole number and its unit, B, KiB, MiB or GiB, for example 64KiB"
        raise BadValueError(f"{shown(text)} is not a size", right)
    return int(match[1]) * _BYTES[match[2]]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens. An IPv6 host stands here without its brackets; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def parse_address(text: str) -> Address:
    """``HOST:PORT``, with an IPv6 host in brackets."""
    right = 'write HOST:PORT, for example "0.0.0.0:8443", "127.0.0.1:8443" or "[::]:8443"'
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        raise BadValueError(f"{shown(text)} has no port", right)
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise BadValueError(f"{shown(text)} has no port from 0 to 65535", right)
    if ":" in host and not host.startswith("["):
        raise BadValueError(f"{shown(text)} has an IPv6 address without brackets", right)
    return Address(_host(host, text, right), int(port))


def _host(host: str, text: str, right: str) -> str:
    """The host without brackets. What could be an IP address must be one: 127.1 or 256.0.0.1 is not."""
    in_brackets = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if in_brackets else host
    try:
        if ip_address(bare).version == (6 if in_brackets else 4) and "%" not in bare:
            return bare
    except ValueError:
        if not in_brackets and _HOST_NAME.fullmatch(host) and not host.rpartition(".")[2].isdigit():
            return host
    raise BadValueError(f"{shown(text)} has no host name or IP address before the port", right)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host. A name other than ``localhost`` is not known to be."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class UpstreamUrl:
    """Where Ollama is. ``authority`` is its Host field (RFC 9110 section 7.2), without a default port."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return (host if self.port == default else f"{host}:{self.port}").encode("ascii")


def parse_upstream_url(text: str) -> UpstreamUrl:
    """``http://HOST:PORT`` or ``https://HOST:PORT``. No fault repeats the URL: it may hold a password."""
    right = 'write http://HOST:PORT or https://HOST:PORT, for example "http://127.0.0.1:11434"'
    url, address = _parse_url(text, right)
    if "?" in text or "#" in text:
        raise BadValueError("the URL has a query or a fragment", right)
    if url.path not in ("", "/"):
        raise BadValueError("the URL has a path, and Ollama's routes have no prefix", right)
    return UpstreamUrl("https" if url.scheme == "https" else "http", address.host, address.port)


def parse_issuer(text: str) -> str:
    """The URL that names an issuer (OpenID Connect Core 1.0 section 2), exactly as it is written."""
    right = "write what the tokens have in iss, for example https://id.example.com/realm"
    _check_private(text, right)
    if "?" in text or "#" in text:
        raise BadValueError("the URL has a query or a fragment", right)
    return text


def parse_jwks_url(text: str) -> str:
    """Where an issuer's keys are; empty text is nowhere."""
    right = "write where the issuer has its keys, for example https://id.example.com/jwks"
    if text:
        _check_private(text, right)
    if "#" in text:
        raise BadValueError("the URL has a fragment", right)
    return text


def _check_private(text: str, right: str) -> None:
    """On the way to the host nobody may read along or change anything: https, or no way at all."""
    url, address = _parse_url(text, right)
    if url.scheme != "https" and not address.is_loopback:
        raise BadValueError("the URL begins with http:// and is not on this machine", right)


def _parse_url(text: str, right: str) -> tuple[SplitResult, Address]:
    """The parts of an http or https URL, without a user. No fault repeats it: it may hold a password."""
    if not re.fullmatch(r"[!-~]*", text):  # urlsplit drops tabs and line ends instead of refusing them
        raise BadValueError("the URL has blanks or characters outside ASCII", right)
    try:
        url = urlsplit(text)
    except ValueError:  # brackets without their other half
        raise BadValueError("this is not a URL", right) from None
    if url.scheme not in ("http", "https"):
        raise BadValueError("the URL begins with neither http:// nor https://", right)
    if "@" in url.netloc:
        raise BadValueError("the URL has a user or a password, which have no use here", right)
    port = "443" if url.scheme == "https" else "80"
    with_port = url.netloc if re.search(r":[0-9]*\Z", url.netloc) else f"{url.netloc}:{port}"
    try:
        address = parse_address(with_port)
    except BadValueError:
        address = None
    if address is None or address.port == 0:
        raise BadValueError("the URL has no valid host and port", right)
    return url, address


def parse_algorithm(text: str) -> str:
    """How JWTs are signed (RFC 7518 section 3.1)."""
    if text not in ALGORITHMS:
        raise BadValueError(f"{shown(text)} is not one of the algorithms", f"write {', '.join(ALGORITHMS)}")
    return text


def parse_audience(text: str) -> str:
    """What may stand in ``aud``."""
    if not text:
        raise BadValueError("an audience is empty", "write what the tokens have in aud")
    return text


def parse_leeway(text: str) -> float:
    """Seconds by which the clocks of an issuer and of this machine may differ."""
    seconds = parse_duration(text)
    if seconds > 600:
        raise BadValueError(f"{shown(text)} is out of range", "write a duration from 0s to 10m")
    return seconds


def parse_token_scope(text: str) -> str:
    """The name of a scope that a JWT may give."""
    names = [scope.value for scope in Scope if scope is not Scope.ADMIN]
    right = f"write {', '.join(names)}"
    if text == Scope.ADMIN.value:
        raise BadValueError('"admin" never comes from a JWT', right)
    if text not in names:
        raise BadValueError(f"{shown(text)} is not a scope", right)
    return text


def parse_route(text: str) -> tuple[str, str]:
    """``GET /api/version`` as method and path: a row of the table of routes, and one without braces."""
    if text in _ROUTES:
        return _ROUTES[text]
    match = _ROUTE.fullmatch(text)
    if match is None or "?" in match[2] or "#" in match[2]:
        right = 'write a method, one blank and a path, for example "GET /api/version"'
        raise BadValueError(f"{shown(text)} is not a route", right)
    near = [name for name in _ROUTES if name.endswith(f" {match[2]}")] or get_close_matches(text, _ROUTES)
    right = f"did you mean {' or '.join(map(shown, near))}?" if near else "docs/routes.md lists the routes"
    if "{" in text:
        raise BadValueError(f"{shown(text)} stands for many paths, which need a key", right)
    raise BadValueError(f"{shown(text)} is not a route that can be opened", right)


def parse_network(text: str) -> Network:
    """``10.0.0.0/8``, or one address."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        right = f'write "{ip_network(text, strict=False)}" for the network, or the address without a mask'
        wrong = f"{shown(text)} has bits set beyond its mask"
    except ValueError:
        right = 'write addresses or networks, for example ["10.0.0.0/8", "::1"]'
        wrong = f"{shown(text)} is not an address or a network"
    raise BadValueError(wrong, right)


def parse_origin(text: str) -> str:
    """``https://chat.example.com`` as browsers write it (RFC 6454 section 6.2), or ``*`` for any."""
    try:
        return cors.parse_origin(text)
    except ValueError as fault:
        wrong, _, right = str(fault).partition("; ")
        raise BadValueError(wrong, right or 'write "https://chat.example.com"') from None
