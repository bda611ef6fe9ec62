"""The walk through a deployment: every check in order, each bounded, whatever the others found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import httpx

from proxy.config import Config, ConfigError, load
from proxy.doctor import (
    certificate,
    environment,
    exposure,
    files,
    first_token,
    issuers,
    keys,
    listeners,
    open_files,
    processes,
    store,
    upstream,
)
from proxy.doctor.bounded import in_thread
from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.identity import jwks_fetch

PATIENCE = 5.0
"""Seconds for a look at this machine."""

Result = TypeVar("Result")
Tell = Callable[[str], None]


def read(path: Path | None, environ: Mapping[str, str]) -> Config | list[Finding]:
    """The configuration, or a finding for each of its faults."""
    try:
        return load(path, environ)
    except ConfigError as fault:
        return [error("config_invalid", f"{one.place}: {one.wrong}", one.right) for one in fault.faults]


async def walk(config: Config, file: Path, tell: Tell) -> AsyncIterator[Finding]:
    """Every finding as it is made; ``tell`` hears what may take long."""
    for finding in judge_warnings(config.warnings):
        yield finding
    async for finding in _proxy(config, file):
        yield finding
    async for finding in _certificate(config):
        yield finding
    async for finding in _store(config):
        yield finding
    for issuer in config.auth.jwt:
        if issuer.remote:
            tell(f"asking {issuer.issuer} for its keys …")
            limit = jwks_fetch.TIMEOUT + 1
            fetched = await _bounded(f"the keys of {issuer.issuer}", limit, issuers.fetch(issuer))
            if isinstance(fetched, Finding):
                yield fetched
            else:
                for finding in issuers.judge_keys(fetched, issuer):
                    yield finding
            difference = await _bounded("the clock", limit, issuers.clock_difference(issuer))
            yield difference if isinstance(difference, Finding) else issuers.judge_clock(difference, issuer)
    async for finding in _ollama(config, tell):
        yield finding


def judge_warnings(warnings: Iterable[str]) -> list[Finding]:
    """What every start warns about. The code has the name of the option."""
    findings = []
    for line in warnings:
        option, _, rest = line.partition(": ")
        seen, _, mend = rest.partition("; ")
        findings.append(warning(f"config_{option.replace('.', '_')}", f"{option}: {seen}", mend))
    return findings or [ok("config", "the configuration has no fault and gives no warning")]


async def _proxy(config: Config, file: Path) -> AsyncIterator[Finding]:
    """Listeners, the process behind them and what belongs to it."""
    served = None if config.tls.mode == "off" else certificate.in_der(config.tls.certificate)
    found = await _bounded("the listeners", 5 * listeners.TIMEOUT, listeners.check(config, served))
    running = False
    if isinstance(found, Finding):
        yield found
    else:
        findings, running = found
        for finding in findings:
            yield finding
    port = config.listen.address.port
    pid: int | None = None
    if running:
        process = await _bounded("processes", PATIENCE, in_thread(lambda: processes.serving(port), PATIENCE))
        pid = None if isinstance(process, Finding) else process
    user = processes.user_of(pid) if pid is not None else None
    modes = await _bounded("files", PATIENCE, in_thread(lambda: files.check(config, file, user), PATIENCE))
    for finding in [modes] if isinstance(modes, Finding) else modes:
        yield finding
    if running and pid is None:
        yield open_files.judge(None, config.listen.max_connections, running=True)
    else:
        yield open_files.judge(open_files.look(pid), config.listen.max_connections, running=running)


async def _certificate(config: Config) -> AsyncIterator[Finding]:
    now = time.time()
    found = await _bounded(
        "the certificate", PATIENCE, in_thread(lambda: certificate.check(config, now), PATIENCE)
    )
    for finding in [found] if isinstance(found, Finding) else found:
        yield finding


async def _store(config: Config) -> AsyncIterator[Finding]:
    path = config.store.path
    seen = await _bounded("the store", store.TIMEOUT, in_thread(lambda: store.look(path), store.TIMEOUT))
    if isinstance(seen, Finding):
        yield seen
        return
    for finding in store.judge(seen, path):
        yield finding
    auth = config.auth
    by_keys = auth.api_keys or auth.ssh_signatures or config.tls.client_auth != "none"
    if by_keys and not seen.there:
        found = keys.judge([], [], time.time(), others=bool(auth.jwt))
    elif by_keys and seen.keys is not None:
        stored = [*seen.keys.keys.values()]
        found = keys.judge(stored, seen.keys.unreadable, time.time(), others=bool(auth.jwt))
    else:
        return
    for finding in found:
        yield finding


async def _ollama(config: Config, tell: Tell) -> AsyncIterator[Finding]:
    url = config.upstream.url
    address = f"{url.scheme}://{url.authority.decode('ascii')}"
    async with upstream.client(address) as ollama:
        seen = await _bounded("Ollama", 4 * upstream.TIMEOUT + 1, upstream.ask(ollama))
        if isinstance(seen, Finding):
            yield seen
        else:
            for finding in upstream.judge(seen, address, cloud=config.policy.cloud):
                yield finding
        async for finding in _beside(config):
            yield finding
        if isinstance(seen, Finding) or seen.fault:
            yield note("no_token_asked", "Ollama does not answer, so it was not asked for a token")
            return
        yield await _token(ollama, seen, tell)


async def _beside(config: Config) -> AsyncIterator[Finding]:
    """Who else reaches Ollama, and what it writes."""
    url, proxy = config.upstream.url, config.listen.address
    found = await _bounded(
        "the ways around the proxy", PATIENCE + exposure.TIMEOUT, exposure.look(url, proxy, PATIENCE)
    )
    if isinstance(found, Finding):
        yield found
        return
    for finding in exposure.judge(found, url.port):
        yield finding
    look = in_thread(lambda: environment.look(url.port) if found.here else None, PATIENCE)
    seen = await _bounded("Ollama's environment", PATIENCE, look)
    if isinstance(seen, Finding):
        yield seen
        return
    for finding in environment.judge(seen):
        yield finding


async def _token(ollama: httpx.AsyncClient, seen: upstream.Seen, tell: Tell) -> Finding:
    limit = first_token.MODELS * upstream.TIMEOUT
    model = await _bounded("the models", limit, first_token.choose(ollama, first_token.candidates(seen)))
    if isinstance(model, Finding):
        return model
    if model is None:
        return first_token.judge(None)
    tell(f"asking {model.name} for one token, which may take {first_token.PATIENCE:g} s …")
    token = await _bounded("the first token", first_token.PATIENCE + 5, first_token.ask(ollama, model))
    return token if isinstance(token, Finding) else first_token.judge(token)


async def _bounded(what: str, seconds: float, look: Awaitable[Result]) -> Result | Finding:
    """What was seen, or that it could not be: one check never keeps the others from being made."""
    try:
        async with asyncio.timeout(seconds):
            return await look
    except TimeoutError:
        return note("check_timed_out", f"{what}: no answer within {seconds:g} s, so this was not checked")
    except Exception as fault:  # whatever else a broken machine may do
        return note("check_failed", f"{what}: {type(fault).__name__}, so this was not checked")
