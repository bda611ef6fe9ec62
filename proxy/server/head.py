"""What a request head must look like to be served at all. Pure.

The parser (llhttp, strict) has already refused what breaks the grammar of RFC 9112. This refuses what
the grammar allows but what two readers could take in two ways, or what this proxy does not speak.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from proxy.errors import ProxyError

MAX_TARGET = 8000
"""Octets of a request target; RFC 9112 section 3 asks for at least this many."""

_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+(?::[0-9]*)?|\[[0-9A-Fa-f:.]+\](?::[0-9]*)?"
)
_LENGTH = re.compile(rb"[0-9]{1,19}[ \t]*")
_QUERY = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|^`{}\"\\<>]*")
_REPEATABLE_ONLY_ONCE = (b"host", b"transfer-encoding", b"content-length", b"expect")


MAX_HOST = 255
"""Octets of a host name (RFC 1035 section 2.3.4); longer ones are refused, and never kept in the cache."""


@lru_cache(maxsize=1024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value.strip(b" \t")) is not None


class Head(NamedTuple):
    """The parts of a request head that decide where it goes and how its body is framed."""

    path: bytes
    query: bytes
    length: int | None
    chunked: bool
    expects_continue: bool
    single: dict[bytes, bytes]
    """The fields by name; of a repeated one, the last."""


def malformed(message: str, status: int = 400) -> ProxyError:
    return ProxyError("malformed_request", message, status=status)


def read_head(version: str, target: bytes, fields: list[tuple[bytes, bytes]]) -> Head:
    """Judge a parsed request head; names of fields are in lower case.

    Raises ProxyError ``malformed_request``: 400 for HTTP other than 1.1 and for an ambiguous Host, target
    or framing; 414 for a target over `MAX_TARGET`; 417 for an expectation other than 100-continue;
    501 for a transfer coding other than chunked (RFC 9112 section 6.1).
    """
    if version != "1.1":
        raise malformed("only HTTP/1.1 is spoken here: send the request as HTTP/1.1")
    if len(target) > MAX_TARGET:
        raise malformed(f"the request target is longer than {MAX_TARGET} bytes: shorten it", 414)

    single = dict(fields)
    if len(single) != len(fields):
        names = [name for name, _ in fields]
        for name in _REPEATABLE_ONLY_ONCE:
            if names.count(name) > 1:
                raise malformed(f"{name.decode().title()} is there twice: send it once")

    host = single.get(b"host")
    if host is None:
        raise malformed("Host is missing: send the host that you mean (RFC 9112 section 3.2)")
    if len(host) > MAX_HOST or not _is_host(host):
        raise malformed("Host is not a host and port: send for example 'Host: ollama.example:8443'")

    path, has_query, query = target.partition(b"?")
    if path[:1] != b"/":
        raise malformed("the request target must be a path that starts with '/' (origin-form)")
    if has_query and not _QUERY.fullmatch(query):
        raise malformed("the query holds characters that no URL may hold: percent-encode them")

    if b"upgrade" in single:
        raise malformed("Upgrade is not supported: send the request again without it, as plain HTTP/1.1")

    coding = single.get(b"transfer-encoding")
    if coding is not None and coding.strip(b" \t").lower() != b"chunked":
        raise malformed("the only transfer coding understood here is 'chunked'", 501)
    length = single.get(b"content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        raise malformed("Content-Length is not a number of bytes: send digits only (RFC 9110 section 8.6)")

    expectation = single.get(b"expect")
    if expectation is not None and expectation.strip(b" \t").lower() != b"100-continue":
        raise malformed("the only expectation understood here is '100-continue'", 417)

    return Head(
        path,
        query,
        None if length is None else int(length),
        coding is not None,
        expectation is not None,
        single,
    )


def head_too_large(target: bytes, fields: list[tuple[bytes, bytes]], limit: int) -> ProxyError:
    """431, or 414 where it is the target that is too long; what has been read of both, ``limit`` in bytes."""
    if len(target) > MAX_TARGET or (not fields and not target):
        return malformed(f"the request target is longer than {MAX_TARGET} bytes: shorten it", 414)
    return ProxyError("headers_too_large", f"the header fields are longer than {limit} bytes: send fewer")


def not_http(reason: str, *, in_body: bool) -> ProxyError:
    """400 for what the parser refused; ``reason`` are its own words, which hold nothing of the request."""
    if in_body:
        return malformed("the chunked body is broken (RFC 9112 section 7.1): fix its framing")
    if "PRI" in reason:  # llhttp's word for the preface of RFC 9113 section 3.4
        return malformed("HTTP/2 is not spoken here: send HTTP/1.1, as ALPN says")
    plain = reason.isascii() and reason.isprintable() and "b'" not in reason
    return malformed(
        f"this is not an HTTP/1.1 request (RFC 9112): {reason if plain else 'it breaks the grammar'}"
    )
