"""One soak: a fresh proxy, a look at it at rest, the load with its unrest, rest again, and the account."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from bench.soak import account, samples, unrest
from bench.soak.client import Book
from bench.soak.issuer import Issuer
from bench.soak.mix import Client, Credentials, public_line
from bench.soak.samples import Sample
from bench.soak.site import HEADER_TIMEOUT, Ollama, Site, new_site, read_log, serving
from bench.soak.unrest import Events

OLLAMA = "Ollama"
"""What the proxy's sockets to it are called."""


@dataclass(frozen=True)
class Plan:
    """``seconds`` of load by that many ``clients``, each with a pause of ``pause`` seconds on the average.

    ``warm_up`` are the seconds that do not count for memory; ``every`` those between two restarts of Ollama,
    two reloads and two changes of keys. ``at_rest`` says that descriptors are compared, before and after,
    which takes half a minute.
    """

    seconds: float
    clients: int
    pause: float
    warm_up: float
    every: float
    at_rest: bool = True


@dataclass
class Outcome:
    """What a soak found. Descriptors are those of the proxy at rest, before and after."""

    plan: Plan
    events: Events
    samples: list[Sample] = field(default_factory=list)
    requests: int = 0
    answered: int = 0
    torn: int = 0
    left: int = 0
    received: int = 0
    sent: int = 0
    tokens: tuple[int, int] = (0, 0)
    codes: dict[str, int] = field(default_factory=dict)
    descriptors_before: list[str] = field(default_factory=list)
    descriptors_after: list[str] = field(default_factory=list)
    rss_at_rest: int = 0
    exit_code: int | None = None
    load_seconds: float = 0.0
    mismatches: list[str] = field(default_factory=list)


async def soak(plan: Plan, directory: Path, say: Callable[[str], None]) -> Outcome:
    """Raises BenchError where something of it could not be started."""
    _many_descriptors()
    site = new_site(directory)
    issuer = Issuer(site.jwks)
    known = await _credentials(site, issuer)
    with serving(site) as process:
        return await _soak(plan, site, known, process, say)


async def _soak(
    plan: Plan, site: Site, known: Credentials, process: subprocess.Popen[str], say: Callable[[str], None]
) -> Outcome:
    outcome = Outcome(plan, Events())
    book = Book(f"soak{os.getpid()}")
    ollama = Ollama(site.upstream_port)
    try:
        await ollama.start()
        await _all_once(site, book, known)
        ollama.kill()
        if plan.at_rest:
            outcome.descriptors_before = await _rest(site, process.pid, OLLAMA)
            say(f"at rest: {len(outcome.descriptors_before)} descriptors")
        await ollama.start()
        await asyncio.sleep(1)
        await _load(plan, site, process.pid, ollama, book, known, outcome, say)
    finally:
        ollama.kill()
    if plan.at_rest:
        outcome.descriptors_after = await _rest(site, process.pid, OLLAMA)
    else:
        await _rest(site, process.pid)
    outcome.rss_at_rest = samples.take(process.pid, 0).rss
    scrape = account.Scrape(await asyncio.to_thread(site.metrics))
    process.send_signal(signal.SIGTERM)
    outcome.exit_code = await asyncio.to_thread(process.wait, 60)
    await _settle(outcome, site, book, scrape)
    return outcome


async def _credentials(site: Site, issuer: Issuer) -> Credentials:
    ssh = ed25519.Ed25519PrivateKey.generate()
    line = site.directory / "id_ed25519.pub"
    line.write_text(public_line(ssh) + " soak\n")
    scopes = [option for scope in ("read", "inference", "manage") for option in ("--scope", scope)]
    usual = await site.create_key("usual")  # which makes the store
    limited, reader, turn, _ = await asyncio.gather(
        site.create_key("limited", "--model", "simulator", "--model", "smollm2:*"),
        site.create_key("reader", scopes="read"),
        site.create_key("turn-0"),
        site.run("keys", "add-ssh", "signer", str(line), *scopes),
    )
    return Credentials(usual, limited, reader, issuer, ssh, turn)


async def _all_once(site: Site, book: Book, known: Credentials) -> None:
    """What the proxy keeps once it has been used, such as its processes for large bodies, is there then."""
    client = Client(0, site.port, book, known, 0.01)
    await asyncio.sleep(1)
    for kind in (
        client.small,
        client.large_and_guarded,
        client.long_and_guarded,
        client.downloaded,
        client.uploaded,
        client.small,
    ):
        await kind()
    over = asyncio.Event()
    over.set()
    await client.run(over)


async def _load(
    plan: Plan,
    site: Site,
    pid: int,
    ollama: Ollama,
    book: Book,
    known: Credentials,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    events, every = outcome.events, plan.every
    over = asyncio.Event()
    began = time.monotonic()
    beside = [
        unrest.restart_ollama(ollama, events, every),
        unrest.change_keys(site, known, events, every),
        unrest.change_signing_keys(known, events, every),
        unrest.reload(site, pid, events, every * 0.8),
        unrest.renew_tokens(known, 2.0),
        unrest.scrape(site, events, min(5.0, every / 3)),
        _sample(pid, outcome.samples, began),
        _tell(book, outcome, began, say),
    ]
    tasks = [asyncio.create_task(each) for each in beside]
    clients = [Client(number, site.port, book, known, plan.pause) for number in range(1, plan.clients + 1)]
    running = [asyncio.create_task(client.run(over)) for client in clients]
    try:
        done, _ = await asyncio.wait(tasks, timeout=plan.seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task  # it runs for ever, so it has failed
    finally:
        over.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    outcome.load_seconds = time.monotonic() - began
    say("the load ends; waiting for the last answers")
    for result in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(result, BaseException):
            outcome.mismatches.append(f"a client failed: {type(result).__name__}: {result}")


async def _sample(pid: int, found: list[Sample], began: float) -> None:
    while True:
        found.append(samples.take(pid, time.monotonic() - began))
        await asyncio.sleep(1.0)


async def _tell(book: Book, outcome: Outcome, began: float, say: Callable[[str], None]) -> None:
    """How it goes, every 10 seconds."""
    told = len(book.seen)
    while True:
        await asyncio.sleep(10)
        last, count = outcome.samples[-1], len(book.seen)
        torn = sum(1 for seen in book.seen if seen.end == "torn")
        say(
            f"load {time.monotonic() - began:.0f} s: {count} exchanges ({(count - told) / 10:.0f}/s),"
            f" {torn} torn,"
            f" RSS {last.rss / 1024:.1f} MiB (with children {last.tree_rss / 1024:.1f}),"
            f" {last.descriptors} descriptors, {len(outcome.events.outages)} restarts,"
            f" {outcome.events.keys} keys, {outcome.events.reloads} reloads"
        )
        told = count


async def _rest(site: Site, pid: int, *gone: str) -> list[str]:
    """Wait until nothing goes on any more, and return what the proxy's descriptors are then open on.

    Half-open clients decide that, and lingering ones. Nothing whose name holds one of ``gone`` is open any
    more either, unless it stays: connections for the proxy's own questions to Ollama find only at the next
    one that it was killed, after 15 s at most.
    """
    ports = {site.port: "clients", site.ops_port: "ops", site.upstream_port: OLLAMA}
    end = time.monotonic() + HEADER_TIMEOUT + 20
    while True:
        await asyncio.sleep(0.5)
        scrape = account.Scrape(await asyncio.to_thread(site.metrics))
        found = samples.named_descriptors(pid, ports)
        connected = scrape.total("ollama_proxy_open_connections") or any(
            part in name for part in gone for name in found
        )
        if not connected or time.monotonic() > end:
            await asyncio.sleep(0.5)  # for the connection of the scrape itself
            return samples.named_descriptors(pid, ports)


async def _settle(outcome: Outcome, site: Site, book: Book, scrape: account.Scrape) -> None:
    lines, faults = read_log(site.access_log)
    rows = await site.usage()
    by_id = {seen.request_id: seen for seen in book.seen}
    found = outcome.mismatches
    found += outcome.events.faults + faults
    found += account.log_against_metrics(lines, scrape, by_id)
    found += account.clients_against_log(book.seen, lines, outcome.events.in_outage)
    found += account.log_against_ledger(lines, rows)
    errors = (site.directory / "errors.log").read_text()
    if errors:
        found.append(f"the proxy wrote to standard error: {errors[-2000:]}")
    if outcome.exit_code != 0:
        found.append(f"the proxy ended with {outcome.exit_code}")
    outcome.requests = len(lines)
    outcome.answered = sum(seen.end == "complete" for seen in book.seen)
    outcome.torn = sum(seen.end == "torn" for seen in book.seen)
    outcome.left = sum(seen.end == "left" for seen in book.seen)
    outcome.received = sum(line["received_bytes"] for line in lines)
    outcome.sent = sum(line["sent_bytes"] for line in lines)
    outcome.tokens = (
        sum(line["input_tokens"] or 0 for line in lines),
        sum(line["output_tokens"] or 0 for line in lines),
    )
    for line in lines:
        code = str(line["status"])
        outcome.codes[code] = outcome.codes.get(code, 0) + 1


def _many_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096 <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
