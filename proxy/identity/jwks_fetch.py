"""Fetches an issuer's keys over HTTP: JWKS (RFC 7517), at a given address or one found by OIDC discovery.

Within bounds: 5 s for all of it, 1 MiB an answer, no redirects, TLS verified. Whoever can make us fetch from
another place, or take another document for keys, could name the keys that we trust.
"""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address

import httpx

from proxy.identity import strict_json
from proxy.identity.issuer import Issuer
from proxy.identity.key_set import KeySet, NoKeysError, from_jwks

TIMEOUT = 5.0
"""Seconds for discovery and keys together."""

MAX_ANSWER = 1024 * 1024
"""Bytes."""

_MAX_METADATA_VALUES = 20_000
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "ollama-auth-proxy"}


class JwksFetch:
    """Remembers, between fetches, which address discovery has named."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._address = issuer.jwks_url

    async def fetch(self) -> KeySet:
        """The keys as they are published now. Raises NoKeysError."""
        try:
            async with asyncio.timeout(TIMEOUT):
                # Made for each fetch, so that ca_file is followed; 20 ms, so not on the event loop.
                context = await asyncio.to_thread(_context, self._issuer)
                async with httpx.AsyncClient(
                    verify=context, trust_env=False, follow_redirects=False, headers=_HEADERS, timeout=TIMEOUT
                ) as client:
                    return await self._fetch(client)
        except (TimeoutError, httpx.TimeoutException):
            raise NoKeysError(f"no whole answer within {TIMEOUT:g} s") from None
        except httpx.ConnectError as error:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            reason = "its certificate is not trusted: set ca_file for a private CA"
            raise NoKeysError(reason if untrusted else "it cannot be reached") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise NoKeysError("its answer broke off or is no HTTP") from None

    async def _fetch(self, client: httpx.AsyncClient) -> KeySet:
        if not self._issuer.discovery:
            return await _key_set(client, self._address)
        if self._address:
            try:
                return await _key_set(client, self._address)
            except (NoKeysError, httpx.HTTPError):
                self._address = ""  # they may have moved
        address = await self._discover(client)
        keys = await _key_set(client, address)
        self._address = address
        return keys

    async def _discover(self, client: httpx.AsyncClient) -> str:
        """``jwks_uri`` of the provider's metadata (OpenID Connect Discovery 1.0, sections 3 and 4)."""
        body = await _get(client, self._issuer.issuer.removesuffix("/") + "/.well-known/openid-configuration")
        try:
            metadata = strict_json.parse(body, _MAX_METADATA_VALUES)
        except ValueError:
            metadata = None
        if not isinstance(metadata, dict):
            raise NoKeysError("its discovery document is no JSON object")
        if metadata.get("issuer") != self._issuer.issuer:
            raise NoKeysError("its discovery document is that of another issuer")
        address = metadata.get("jwks_uri")
        if not isinstance(address, str) or not _is_safe(address, local=_is_local(self._issuer.issuer)):
            raise NoKeysError("its discovery document names no https address with keys")
        return address


def _is_safe(address: str, *, local: bool = True) -> bool:
    """Whether it is https, or, where ``local`` is allowed, http on this very machine."""
    return address.lower().startswith("https://") or (local and _is_local(address))


def _is_local(address: str) -> bool:
    try:
        url = httpx.URL(address)
        return url.scheme == "http" and (url.host == "localhost" or ip_address(url.host).is_loopback)
    except (httpx.InvalidURL, ValueError):
        return False


def _context(issuer: Issuer) -> ssl.SSLContext:
    """Trusts the CAs of ``ca_file``, and no others, where there is one. Raises NoKeysError."""
    if issuer.ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=issuer.ca_file)
    except OSError:  # ssl.SSLError too
        raise NoKeysError(f"{issuer.ca_file} holds no readable CA certificate") from None


async def _key_set(client: httpx.AsyncClient, address: str) -> KeySet:
    body = await _get(client, address)
    try:
        return await asyncio.to_thread(from_jwks, body)  # a large one takes milliseconds
    except ValueError:
        raise NoKeysError("its answer is no JSON object with a list 'keys'") from None


async def _get(client: httpx.AsyncClient, address: str) -> bytes:
    if not _is_safe(address):
        raise NoKeysError("its address is neither https nor on this machine")
    async with client.stream("GET", address) as response:
        if response.status_code != httpx.codes.OK:
            raise NoKeysError(f"it answered with status {response.status_code}")
        # Not asked for: a small answer could unpack to a huge one before we see how long it is.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise NoKeysError("its answer is compressed")
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MAX_ANSWER:
                raise NoKeysError(f"its answer is larger than {MAX_ANSWER} bytes")
        return bytes(body)
