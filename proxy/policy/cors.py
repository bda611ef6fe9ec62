"""Which web pages may use this proxy from a browser (Fetch standard, section 3.3: CORS). Pure.

A browser names the page's origin in Origin, and shows the page an answer only where that says so. Before a
request with a header such as Authorization it asks, by a preflight that holds no credential. A page's key
is in a header that its script sets. Access-Control-Allow-Credentials is never sent, so no page reads what
was answered to the browser's own cookie, password or certificate. This is why "*" may be answered to every
origin, ``null`` among them: without a key a page gets no more than anybody in its place on the network.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address

ANY = "*"

Fields = list[tuple[bytes, bytes]]

MAX_ASKED = 4096
"""Bytes of Access-Control-Request-Headers that are looked at; of a longer one no name is allowed."""

MAX_NAMES = 64
"""Names that are allowed at once; what is asked for beyond them is not."""

_ALLOWED_HEADERS = frozenset(
    {
        b"accept",
        b"authorization",
        b"baggage",  # W3C Baggage, beside Trace Context's traceparent and tracestate
        b"cache-control",
        b"content-type",
        b"http-referer",  # pages written for OpenRouter send this and X-Title to everybody
        b"idempotency-key",
        b"pragma",
        b"traceparent",
        b"tracestate",
        b"user-agent",  # ollama-js sets it, and Firefox and Safari ask for it
        b"x-api-key",
        b"x-client-request-id",
        b"x-request-id",
        b"x-requested-with",
        b"x-title",
    }
)
_ALLOWED_PREFIXES = (b"anthropic-", b"openai-", b"x-stainless-")
"""Those of the Anthropic and OpenAI SDKs: versions, betas, projects, and what they tell of themselves."""

_EXPOSED = (
    b"Access-Control-Expose-Headers: "
    b"X-Request-Id, request-id, Retry-After, RateLimit, RateLimit-Policy, x-should-retry\r\n"
)
_VARY = b"Vary: Origin\r\n"
_PREFLIGHT = (
    b"HTTP/1.1 204 No Content\r\n"
    b"Access-Control-Allow-Origin: %b\r\n"
    b"Access-Control-Allow-Methods: GET, HEAD, POST, DELETE\r\n"
    b"%b"
    b"Access-Control-Max-Age: 7200\r\n"
    b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
)

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,64}")  # RFC 9110 section 5.6.2, in lower case


class Cors:
    """The origins that may; without any, nothing of CORS is ever said. Never changed after it was made."""

    __slots__ = ("_fields", "_otherwise", "any_origin")

    def __init__(self, origins: Iterable[str]) -> None:
        """``origins`` as `parse_origin` gives them; with ``*`` among them, all."""
        allowed = frozenset(origins)
        self.any_origin = ANY in allowed
        self._otherwise = b""
        self._fields: dict[bytes | None, bytes] = {}
        if self.any_origin:
            self._otherwise = b"Access-Control-Allow-Origin: *\r\n" + _EXPOSED
        elif allowed:
            self._otherwise = _VARY
            for origin in allowed:
                line = b"Access-Control-Allow-Origin: %b\r\n" % origin.encode("ascii")
                self._fields[origin.encode("ascii")] = line + _EXPOSED + _VARY

    def fields_for(self, origin: bytes | None) -> bytes:
        """The field lines that every answer carries, errors and streams too; each ends with CRLF.

        ``origin`` is the request's Origin, of several all joined by a comma, which is no origin. With a
        list the answer says that it depends on it, whatever it is: a cache may hold it for other pages.
        """
        return self._fields.get(origin, self._otherwise)

    def allows(self, origin: bytes) -> bool:
        """Whether a page of this origin may: the bytes are compared as they are."""
        return self.any_origin or origin in self._fields


def preflight(cors: Cors, method: str, fields: Fields) -> bytes | None:
    """The status line and field lines of the answer to a preflight, or None where there is none to give.

    That is for what is no preflight (OPTIONS with one Origin and Access-Control-Request-Method), and
    for origins that may not: these get what OPTIONS gets without CORS. It depends neither on the path nor on
    any credential, so it tells nothing of either. Names in ``fields`` are in lower case.
    """
    if method != "OPTIONS":
        return None
    origins = [value for name, value in fields if name == b"origin"]
    if len(origins) != 1 or not cors.allows(origins[0]):
        return None
    if all(name != b"access-control-request-method" for name, _ in fields):
        return None
    more = b""
    asked = b",".join(value for name, value in fields if name == b"access-control-request-headers")
    if allowed := allowed_headers(asked):
        more += b"Access-Control-Allow-Headers: %b\r\n" % b", ".join(allowed)
    if (b"access-control-request-private-network", b"true") in fields:  # a public page, and we on a LAN
        more += b"Access-Control-Allow-Private-Network: true\r\n"
    return _PREFLIGHT % (b"*" if cors.any_origin else origins[0], more)


def allowed_headers(asked: bytes) -> list[bytes]:
    """Of the names in Access-Control-Request-Headers those that clients of any dialect send, each once."""
    if len(asked) > MAX_ASKED:
        return []
    names = dict.fromkeys(name.strip(b" \t").lower() for name in asked.split(b","))
    return [name for name in names if _is_allowed_header(name)][:MAX_NAMES]


def _is_allowed_header(name: bytes) -> bool:
    if name in _ALLOWED_HEADERS:
        return True
    return name.startswith(_ALLOWED_PREFIXES) and _TOKEN.fullmatch(name) is not None


# Origins in the configuration

_PARTS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://|(?!.*://))"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^][:/?#@\\\s]{1,255})(?::(?P<port>[0-9]{0,9}))?"
    r"(?P<rest>[/?#].*)?",
    re.DOTALL,
)
_HOST = re.compile(r"(?=.{1,254}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_LAST_IS_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_EXAMPLE = 'write an origin as browsers do, for example "https://chat.example.com", or "*" for any page'


def parse_origin(text: str) -> str:
    """``https://chat.example.com`` as browsers write it in Origin (RFC 6454 section 6.2), or ``*``.

    Raises ValueError, which says what is wrong and, after "; ", what would be right.
    """
    if text == ANY:
        return text
    if "@" in text:  # which may be behind a password
        raise ValueError(f"it has a user name in it, which no origin has; {_EXAMPLE}")
    shown = (f'"{text[:60]}…"' if len(text) > 60 else f'"{text}"').replace(";", "?")
    if text == "null":
        right = 'serve the page over HTTP and write its origin, or "*" for any page'
        raise ValueError(
            f"{shown} is said by many pages, local files and sandboxed frames among them; {right}"
        )
    if ANY in text:
        right = 'write out each origin, for example "https://chat.example.com", or "*" for any page'
        raise ValueError(f"{shown} has a wildcard in it; {right}")
    match = _PARTS.fullmatch(text)
    origin = match and _as_browsers_write(match["scheme"] or "https", match["host"], match["port"])
    if not match or not origin:
        raise ValueError(f"{shown} is not an origin; {_EXAMPLE}")
    if origin == text:
        return text
    if match["scheme"] is None:
        raise ValueError(f'{shown} has no scheme; write "{origin}", or the same with http')
    if match["rest"] is not None:
        wrong = "goes on after host and port"
    elif not text.isascii():
        wrong = "has letters that browsers write in Punycode"
    elif text.lower() == origin:
        wrong = "has upper case letters, which browsers write in lower case"
    elif match["port"] is not None and ":" not in origin.partition("://")[2].rpartition("]")[2]:
        wrong = "has a port that browsers leave out"
    else:
        wrong = "is not how browsers write it"
    raise ValueError(f'{shown} {wrong}; write "{origin}"')


def _as_browsers_write(scheme: str, host: str, port: str | None) -> str | None:
    """The origin as the URL standard serialises it (sections 3.5 and 4.7); None where there is none."""
    scheme = scheme.lower()
    written = _host(host)
    if written is None:
        return None
    if not port or int(port) == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{written}"
    return f"{scheme}://{written}:{int(port)}" if 0 < int(port) < 65536 else None


def _host(text: str) -> str | None:
    if text.startswith("["):
        try:
            address = IPv6Address(text[1:-1])
        except AddressValueError:
            return None
        return None if address.ipv4_mapped else f"[{address.compressed}]"
    labels = unicodedata.normalize("NFKC", text.lower()).split(".")
    host = ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}" for label in labels
    )
    if not _HOST.fullmatch(host):
        return None
    if not _LAST_IS_NUMBER.fullmatch(host.removesuffix(".")):
        return host
    try:
        return str(IPv4Address(host.removesuffix(".")))
    except AddressValueError:
        return None
