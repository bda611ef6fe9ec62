"""Keeps the keys of one issuer as they are published, over HTTP or in a file, whatever becomes of the source.

While the source cannot be read, the keys at hand stay in force. A key that is no longer published stops
counting when the source is next read.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from proxy.identity.issuer import Issuer
from proxy.identity.jwks_fetch import JwksFetch
from proxy.identity.key_file import KeyFile
from proxy.identity.key_set import NO_KEYS, KeySet, NoKeysError

log = logging.getLogger("ollama_auth_proxy")

REFRESH_INTERVAL = 300.0
"""Seconds after which keys are fetched anew."""

RETRY_INTERVAL = 30.0
"""Seconds after which a fetch that failed is tried again."""

COOL_DOWN = 30.0
"""Seconds between two fetches that tokens can cause."""

LOOK_INTERVAL = 5.0
"""Seconds between two looks at a file."""

_USER = re.compile(r"//[^/]*@")


class IssuerKeys:
    """``on_change`` is called with the keys when they are others: `TokenVerifier.replace_keys` fits.

    ``failures`` counts the times that the source could not be read.
    """

    def __init__(self, issuer: Issuer, on_change: Callable[[Issuer, KeySet], None]) -> None:
        self.issuer = issuer
        self.keys = NO_KEYS
        self.failures = 0
        self._on_change = on_change
        self._source = JwksFetch(issuer) if issuer.remote else KeyFile(issuer)
        self._read_at: float | None = None
        self._reason = ""
        self._running = False
        self._reading = False
        self._wanted = asyncio.Event()
        self._wanted_at: float | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def age(self) -> float | None:
        """Seconds since the source was last read; None where it never could be."""
        return None if self._read_at is None else time.monotonic() - self._read_at

    def inherit(self, before: IssuerKeys) -> None:
        """Begin with what ``before`` knows of the same issuer."""
        self.keys, self.failures, self._read_at = before.keys, before.failures, before._read_at

    def refresh_wanted(self) -> asyncio.Future[None] | None:
        """Ask for newer keys, because a token names one that is not here.

        The future is done when a fetch is over: the one under way, or one that begins now. It never has an
        exception, and may be cancelled. None where it is too early for another fetch.
        """
        if isinstance(self._source, KeyFile) or not self._running:
            return None
        if not self._reading and not self._wanted.is_set():
            now = time.monotonic()
            if self._wanted_at is not None and now - self._wanted_at < COOL_DOWN:
                return None
            self._wanted_at = now
            self._wanted.set()
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(over)
        return over

    async def run(self) -> NoReturn:
        """Reads the source, now and for ever; a file is read before anything is waited for."""
        self._running = True
        try:
            while True:
                self._wanted.clear()
                self._reading = True
                good = await self._read()
                self._reading = False
                self._release()
                await self._sleep(good)
        finally:
            self._running = self._reading = False
            self._release()

    async def _sleep(self, good: bool) -> None:
        seconds = REFRESH_INTERVAL if good else RETRY_INTERVAL
        if isinstance(self._source, KeyFile):
            seconds = LOOK_INTERVAL
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for over in waiting:
            if not over.done():  # cancelled, since its request has ended
                over.set_result(None)

    async def _read(self) -> bool:
        """Take over what the source holds; False where it cannot be read."""
        try:
            keys = self._source.read() if isinstance(self._source, KeyFile) else await self._source.fetch()
        except NoKeysError as error:
            self._failed(str(error))
            return False
        except Exception as error:  # a fault of ours: the next time may be better, and tokens are waiting
            self._failed(f"a fault of the proxy, {type(error).__name__}")
            return False
        told = self._read_at is not None and not self._reason and keys == self.keys
        self._read_at = time.monotonic()
        self._reason = ""
        if keys != self.keys:
            self.keys = keys
            self._on_change(self.issuer, keys)
        if not told:
            log.log(
                logging.INFO if keys.keys else logging.WARNING,
                "issuer %s: %d keys in use, %d published ones cannot be used",
                _shown(self.issuer),
                len(keys.keys),
                keys.dropped,
            )
        return True

    def _failed(self, reason: str) -> None:
        self.failures += 1
        if reason == self._reason:
            return
        self._reason = reason
        log.warning(
            "issuer %s: the keys cannot be read: %s; the %d that were read before stay in force",
            _shown(self.issuer),
            reason,
            len(self.keys.keys),
        )


def _shown(issuer: Issuer) -> str:
    """Its name without the user and password that an address may hold."""
    return _USER.sub("//", issuer.issuer)
