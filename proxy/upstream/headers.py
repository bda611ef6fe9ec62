"""Which header fields cross the proxy, and the heads that are written. Pure.

RFC 9110 section 7.6.1: hop-by-hop fields and those named in Connection end here. Order, duplicates and
values stay as they came. Content-Length and Transfer-Encoding pass in their place, because bodies are
framed on the other side as they were on this one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from proxy.errors import REASONS
from proxy.identity.credentials import PLACES

Fields = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"upgrade"})

_NOT_UPSTREAM = (
    _HOP_BY_HOP
    | PLACES
    | {
        b"host",  # Ollama serves only its own authority
        b"expect",  # answered here
        b"origin",  # Ollama refuses foreign origins; CORS is the proxy's business
        b"cookie",  # may be a credential of another site, and so may the next four
        b"api-key",
        b"x-goog-api-key",
        b"x-auth-token",
        b"x-access-token",
        b"forwarded",
        b"via",
        b"client-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"cf-connecting-ipv6",
    }
)
_NOT_UPSTREAM_PREFIXES = (b"proxy-", b"x-forwarded-", b"x-real-", b"x-original-")

_NOT_DOWNSTREAM = _HOP_BY_HOP | {b"x-request-id"}
_NOT_DOWNSTREAM_PREFIXES = (b"proxy-", b"access-control-")  # CORS is the proxy's business

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def named_in_connection(value: bytes) -> frozenset[bytes]:
    """The field names that a Connection field makes hop-by-hop, in lower case.

    Never those of the framing: dropping them would let a body be read as the next request.
    """
    return frozenset(token.strip(b" \t").lower() for token in value.split(b",")) - _FRAMING


def _goes_upstream(name: bytes) -> bool:
    return name not in _NOT_UPSTREAM and not name.startswith(_NOT_UPSTREAM_PREFIXES)


def upstream_head(
    method: str, target: bytes, fields: Fields, authority: bytes, connection: bytes | None
) -> bytes:
    """The request head for Ollama.

    ``fields`` have names in lower case; ``connection`` is the client's Connection field (of several, all
    joined by commas), ``authority`` what Ollama wants as Host.
    """
    named = named_in_connection(connection) if connection is not None else ()
    lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method.encode("ascii"), target, authority)]
    lines += [b"%b: %b\r\n" % field for field in fields if _goes_upstream(field[0]) and field[0] not in named]
    lines.append(b"\r\n")
    return b"".join(lines)


# What becomes of a response's field.
_PASSES, _CODING, _LENGTH, _TYPE, _CONNECTION, _ENDS = range(6)
_ROLES = {
    b"transfer-encoding": _CODING,
    b"content-length": _LENGTH,
    b"content-type": _TYPE,
    b"connection": _CONNECTION,
}


@lru_cache(maxsize=1024)
def _role(name: bytes) -> int:
    lower = name.lower()
    if lower in _ROLES:
        return _ROLES[lower]
    return _ENDS if lower in _NOT_DOWNSTREAM or lower.startswith(_NOT_DOWNSTREAM_PREFIXES) else _PASSES


class ClientHead(NamedTuple):
    """A response head for the client, and what it says about the body that follows."""

    data: bytes
    chunked: bool
    content_type: bytes


def client_head(status: int, reason: bytes, fields: Fields, own: bytes, *, body: bool) -> ClientHead:
    """The response head for the client, names spelled as Ollama spelled them.

    ``own`` are the proxy's own field lines and the blank line, ``body`` says whether one follows. A body
    that Ollama ends by closing its connection is sent in chunks, so that the client can tell its end from
    a break.

    Raises ValueError for a transfer coding that is not understood.
    """
    lines = [b"HTTP/1.1 %d %b" % (status, reason or REASONS.get(status, b""))]
    named: frozenset[bytes] = frozenset()
    framed = chunked = False
    content_type = b""
    for name, value in fields:
        role = _role(name)
        if role:
            if role == _LENGTH:
                framed = True
            elif role == _TYPE:
                content_type = value
            elif role == _CODING:
                if chunked or value.strip(b" \t").lower() != b"chunked":
                    raise ValueError("unknown transfer coding")
                if status == 204 or status < 200:  # RFC 9112 section 6.1: not with these
                    continue
                framed = chunked = True
            else:
                if role == _CONNECTION:
                    named |= named_in_connection(value)
                continue
        lines.append(b"%b: %b" % (name, value))
    if named:
        lines[1:] = [line for line in lines[1:] if line[: line.index(b":")].lower() not in named]
    if body and not framed:
        chunked = True
        lines.append(b"Transfer-Encoding: chunked")
    lines.append(own)
    return ClientHead(b"\r\n".join(lines), body and chunked, content_type)
