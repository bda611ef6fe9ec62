"""The command line as its users meet it: a process, its exit code, its stdout and its stderr."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from proxy.identity.api_keys import Refusal, issue, verify
from proxy.store.follow import load
from proxy.store.keys import open_store
from proxy.store.listing import members

from .. import program

Run = Callable[..., subprocess.CompletedProcess[str]]

MEMBERS = [
    "id",
    "name",
    "kind",
    "scopes",
    "models",
    "cloud",
    "limits",
    "created",
    "expires",
    "last_used",
    "revoked",
]

PUBLIC_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIMDZadMLcFifkbeiOW/GeEeCl7jA6nnhbMch5YCB79E9"
FINGERPRINT = "SHA256:hE2GZRtOCRytYwNmFY0U4TYdn8MyjAqszYOoa4MK2O8"  # as ssh-keygen -l prints it


def proxy(
    *arguments: str, environ: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command without the proxy's variables of this environment, and with those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_PROXY_")}
    return program.run(*arguments, environ=clean | (environ or {}), **options)


def made(keys: Run, *arguments: str) -> dict[str, object]:
    return json.loads(keys("create", *arguments, "--json").stdout)


def stored(database: Path, name: str, **changes: object) -> tuple[str, dict[str, object]]:
    """A key that is there already: its text, and its members as JSON has them."""
    text, key = issue(name, int(time.time()))
    key = replace(key, **changes)
    asyncio.run(open_store(database).create(key))
    return text, members(key)


def documents(database: Path) -> list[dict[str, object]]:
    """What ``keys list --json`` prints, without another process."""
    return [members(key) for key in asyncio.run(open_store(database).list())]


def usable(database: Path, text: str, now: float | None = None) -> bool:
    """Whether a proxy that read the store now would accept the key."""
    keys = asyncio.run(load(database))
    return not isinstance(verify(keys, text.encode(), now or time.time()), Refusal)


def seconds(document: dict[str, object], member: str) -> float:
    return datetime.fromisoformat(str(document[member])).timestamp()


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed said, in one line of words; nothing on stdout and no traceback."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())
