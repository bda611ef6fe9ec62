"""What goes on beside the clients: Ollama killed, keys and signing keys changed, reloads, scrapes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field

from bench.soak.mix import Credentials
from bench.soak.site import Ollama, Site

FOLLOWED = 12.0
"""Seconds after which a changed file of signing keys is in force for certain."""

KEY_FOLLOWED = 3.0
"""The same of a key that a command has created or revoked; 2 are promised."""

_RACE = 1.0
"""Seconds that what a client does before an outage may take to arrive at the proxy."""


@dataclass
class Events:
    """What happened when; ``outages`` are spans of `time.monotonic` in which Ollama may fail a request."""

    outages: list[tuple[float, float]] = field(default_factory=list)
    keys: int = 0
    signing_keys: int = 0
    reloads: int = 0
    scrapes: int = 0
    faults: list[str] = field(default_factory=list)

    def in_outage(self, start: float, end: float) -> bool:
        return any(start <= last and end >= first - _RACE for first, last in self.outages)


async def restart_ollama(ollama: Ollama, events: Events, every: float) -> None:
    """Kill it, leave it dead for a moment, start it again."""
    while True:
        await asyncio.sleep(every)
        began = time.monotonic()
        events.outages.append((began, float("inf")))
        ollama.kill()
        await asyncio.sleep(min(3.0, every / 10))
        await ollama.start()
        events.outages[-1] = (began, time.monotonic() + 1.0)


async def change_keys(site: Site, known: Credentials, events: Events, every: float) -> None:
    """Always one key that lives for a while; the one before it is revoked while it is in use."""
    while True:
        key = await site.create_key(f"turn-{events.keys + 1}")
        events.keys += 1
        await asyncio.sleep(KEY_FOLLOWED)
        previous, known.turn = known.turn, key
        await asyncio.sleep(0.5)
        await site.run("keys", "revoke", previous.split("_")[1])
        await asyncio.sleep(KEY_FOLLOWED)
        known.retired = previous
        await asyncio.sleep(every)


async def change_signing_keys(known: Credentials, events: Events, every: float) -> None:
    """A new key is announced, then used, then the old one withdrawn; its tokens are good no more."""
    while True:
        await asyncio.sleep(every)
        known.issuer.announce()
        await asyncio.sleep(FOLLOWED)
        old = known.token
        known.issuer.change()
        known.token = known.issuer.token()
        known.expired = known.issuer.token(-600)
        await asyncio.sleep(2.0)
        known.issuer.withdraw()
        await asyncio.sleep(FOLLOWED)
        known.withdrawn = old
        events.signing_keys += 1


async def reload(site: Site, pid: int, events: Events, every: float) -> None:
    """Another certificate, another page in the configuration, and SIGHUP."""
    while True:
        await asyncio.sleep(every)
        events.reloads += 1
        site.renew_certificate()
        site.write_config("ab"[events.reloads % 2])
        os.kill(pid, signal.SIGHUP)


async def renew_tokens(known: Credentials, every: float) -> None:
    """Other tokens of the same key, as users come and go."""
    while True:
        await asyncio.sleep(every)
        known.token = known.issuer.token()


async def scrape(site: Site, events: Events, every: float) -> None:
    """Both forms in turn."""
    while True:
        await asyncio.sleep(every)
        accept = ("text/plain", "application/openmetrics-text; version=1.0.0")[events.scrapes % 2]
        try:
            await asyncio.to_thread(site.metrics, accept)
            events.scrapes += 1
        except OSError as error:
            events.faults.append(f"a scrape failed: {error}")
