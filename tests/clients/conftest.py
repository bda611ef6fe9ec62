"""A proxy over TLS before the built-in simulator, for clients that say more than a small model can take."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ..wire.site import Keys, Site, make_key

MODEL = "smollm2:135m"
OTHER = "simulator"
SCOPES = ("read", "inference", "manage", "push", "account")
DENIED = "this key may not use the model"


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    """Its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy.simulator", "--listen", "127.0.0.1:0", "--tokens-per-second", "2000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        urls = (re.match(r"(http://127\.0\.0\.1:\d+) answers", line) for line in process.stderr)
        yield next(match[1] for match in urls if match)
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """An ordinary key, one for everything, and in `more` some with limits."""
    store = tmp_path_factory.mktemp("keys") / "keys.db"
    default, limited = make_key(store, "default"), make_key(store, "limited", "--model", MODEL)
    capped = make_key(store, "capped", "--max-output-tokens", "100")
    manages = ("--scope", "inference", "--scope", "manage", "--model", MODEL, "--min-keep-alive", "1m")
    unhurried = make_key(store, "unhurried", *manages)
    every = make_key(store, "every", *(word for scope in SCOPES for word in ("--scope", scope)))
    unused = dict.fromkeys(("read", "inference", "manage", "push", "account", "revoked", "expired"), default)
    keys = Keys(store=store, default=default, every=every, **unused)
    keys.more.extend((limited, capped, unhurried))
    return keys


@pytest.fixture(scope="session")
def limited(keys: Keys) -> str:
    """A key for one model."""
    return keys.more[0]


@pytest.fixture(scope="session")
def capped(keys: Keys) -> str:
    """A key for answers of 100 tokens at most."""
    return keys.more[1]


@pytest.fixture(scope="session")
def unhurried(keys: Keys) -> str:
    """A key that may manage one model, but not unload it."""
    return keys.more[2]


@dataclass(frozen=True)
class Served:
    """A proxy as its clients see it."""

    site: Site
    url: str
    trust: str

    def denied(self) -> dict[str, float]:
        """How many requests were refused, by code."""
        name, samples = "ollama_proxy_denied_total", self.site.samples()
        return {labels["code"]: value for sample, labels, value in samples if sample == name}


def served(site: Site) -> Served:
    return Served(site, f"https://localhost:{site.port}", str(site.config.parent / "data" / "tls.crt"))


@pytest.fixture(scope="session")
def proxy(simulator: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    site = Site(folder, keys, upstream={"url": simulator}, auth={"path_keys": True}, policy={"cloud": False})
    proxy = served(site)
    yield proxy
    # No body of an ordinary client is one that Ollama could read in another way than we do.
    assert proxy.denied().get("unreadable_body", 0) == 0
    site.stop()
