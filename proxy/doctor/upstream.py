"""Whether Ollama answers where upstream.url says, and what it tells of itself. `judge` is pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from proxy.doctor.findings import Finding, error, note, ok, warning
from proxy.upstream.json_answer import get_json

TIMEOUT = 5.0
"""Seconds for each answer; none of these needs a model."""

# Read from Ollama's route tables, tag by tag.
ROUTES_SINCE = (
    ((0, 13, 3), "/v1/responses"),
    ((0, 14, 0), "/v1/messages"),
    ((0, 16, 2), "/api/status"),
    ((0, 20, 0), "/v1/audio/transcriptions"),
)


class Model(NamedTuple):
    """``size`` is in bytes; ``context`` is that with which it is loaded, None where it is not."""

    name: str
    size: int
    remote: bool = False
    context: int | None = None


class Seen(NamedTuple):
    """``fault`` says why Ollama gives no answer; ``cloud`` is None where it does not tell."""

    fault: str = ""
    version: str = ""
    models: tuple[Model, ...] | None = None
    loaded: tuple[Model, ...] = ()
    cloud: bool | None = None


def client(url: str) -> httpx.AsyncClient:
    """Proxies named in the environment are for the Internet, not for Ollama."""
    return httpx.AsyncClient(
        base_url=url,
        trust_env=False,
        timeout=TIMEOUT,
        verify=url.startswith("https:"),
        follow_redirects=False,
    )


async def ask(ollama: httpx.AsyncClient) -> Seen:
    try:
        answer = await get_json(ollama, "/api/version")
    except httpx.ConnectError as fault:
        untrusted = "CERTIFICATE_VERIFY_FAILED" in str(fault)
        return Seen("its certificate is not trusted here" if untrusted else "no connection can be opened")
    except httpx.TimeoutException:
        return Seen(f"no answer came within {TIMEOUT:g} s")
    except httpx.HTTPError:
        return Seen("what answers speaks no HTTP")
    if not isinstance(answer, dict) or not isinstance(answer.get("version"), str):
        return Seen("what answers there is not Ollama (GET /api/version)")
    tags, running, status = await _members(ollama, "/api/tags"), await _members(ollama, "/api/ps"), None
    answered = await _members(ollama, "/api/status")
    if isinstance(answered.get("cloud"), dict):
        status = answered["cloud"].get("disabled")
    return Seen(
        version=answer["version"][:40],
        models=_models(tags) if "models" in tags else None,
        loaded=_models(running),
        cloud=not status if isinstance(status, bool) else None,
    )


async def _members(ollama: httpx.AsyncClient, path: str) -> dict[str, Any]:
    try:
        answer = await get_json(ollama, path)
    except httpx.HTTPError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _models(answer: dict[str, Any]) -> tuple[Model, ...]:
    entries = answer.get("models")
    return tuple(
        Model(
            str(entry["name"]),
            size if isinstance(size := entry.get("size"), int) else 0,
            bool(entry.get("remote_host")),
            context if isinstance(context := entry.get("context_length"), int) and context > 0 else None,
        )
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    )


def judge(seen: Seen, url: str, *, cloud: bool) -> Iterator[Finding]:
    """``cloud`` is policy.cloud."""
    if seen.fault:
        yield error(
            "ollama_unreachable",
            f"Ollama does not answer at {url}: {seen.fault}",
            "start it ('ollama serve', systemctl start ollama), or write in upstream.url where it listens",
        )
        return
    yield from _judge_version(seen.version, url)
    if seen.models is None:
        yield warning(
            "models_unknown", f"Ollama at {url} does not list its models (GET /api/tags)", "read its log"
        )
    elif not seen.models:
        yield warning(
            "no_model", f"Ollama at {url} has no model", "fetch one, for example: ollama pull llama3.2"
        )
    else:
        names = ", ".join(model.name for model in seen.models[:5])
        more = f", and {len(seen.models) - 5} more" if len(seen.models) > 5 else ""
        yield ok("models", f"Ollama has {names}{more}")
    yield from _judge_cloud(seen.cloud, cloud)


def _judge_version(version: str, url: str) -> Iterator[Finding]:
    match = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version)
    numbers = tuple(map(int, match.groups())) if match else (0, 0, 0)
    if numbers == (0, 0, 0):
        yield note("ollama_version_unknown", f"Ollama at {url} says that its version is {version!r}")
    elif lacking := [route for since, route in ROUTES_SINCE if numbers < since]:
        yield note(
            "ollama_old",
            f"Ollama at {url} is {version}, which has no {', '.join(lacking)}",
            "update Ollama, if clients need these",
        )
    else:
        yield ok("ollama_answers", f"Ollama {version} answers at {url}")


def _judge_cloud(open_in_ollama: bool | None, open_here: bool) -> Iterator[Finding]:
    if open_here and open_in_ollama is False:
        yield note(
            "cloud_closed_by_ollama",
            "policy.cloud is true, and Ollama itself has the cloud disabled, so no cloud model answers",
            "write policy.cloud = false, or start Ollama without OLLAMA_NO_CLOUD",
        )
    elif open_here:
        yield note(
            "cloud_open",
            "policy.cloud is true: prompts of keys with the cloud grant leave this machine",
            "where that is not meant, write policy.cloud = false and start Ollama with OLLAMA_NO_CLOUD=1",
        )
    elif open_in_ollama:
        yield note(
            "cloud_open_in_ollama",
            "the proxy closes the cloud, and Ollama itself has it open, for whoever reaches Ollama beside it",
            "start Ollama with OLLAMA_NO_CLOUD=1 too",
        )
    elif open_in_ollama is None:
        yield note("cloud_unknown", "Ollama does not tell whether its cloud is open (GET /api/status)")
    else:
        yield ok("cloud_closed", "the cloud is closed, by the proxy and by Ollama")
