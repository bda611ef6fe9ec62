"""Against a real OpenID Connect provider, in a process of its own: discovery, rotation and outage.

It is oidc-provider-mock, whose tokens have no ``kid`` though its keys have one, and which makes a new key
whenever it starts. Where it is not installed these tests are skipped, but with CI=true they fail.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from proxy.identity import issuer_keys
from proxy.identity.api_keys import Refusal
from proxy.identity.identity import Identity
from proxy.identity.issuer import Issuer
from proxy.identity.issuer_keys import IssuerKeys
from proxy.identity.jwt import TokenVerifier, UnknownKey

from .issuer_server import free_port

PATIENCE = 30.0
CALLBACK = "http://127.0.0.1/callback"
USERS = [
    {"sub": "alice", "ollama": "read inference", "models": ["llama3.2:*"], "cloud": True},
    {"sub": "bob", "ollama": ["read", "admin"], "limits": {"max_context": 4096}},
]


class Provider:
    """The process, always on the same port."""

    def __init__(self, log: Path) -> None:
        self._port = free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        users = [part for user in USERS for part in ("--user-claims", json.dumps(user))]
        command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(self._port), *users]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                httpx.get(f"{self.url}/jwks", trust_env=False).raise_for_status()
                return
            except httpx.HTTPError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < ends, self._log.read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def id_token(self, user: str, client: str = "ollama") -> bytes:
        """By the authorization code flow, as a user's browser and a client would."""
        with httpx.Client(base_url=self.url, trust_env=False) as browser:
            asked = {
                "client_id": client,
                "redirect_uri": CALLBACK,
                "response_type": "code",
                "scope": "openid",
            }
            consent = browser.post("/oauth2/authorize", params=asked, data={"sub": user})
            code = parse_qs(urlsplit(consent.headers["location"]).query)["code"][0]
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
            answer = browser.post("/oauth2/token", data=form, auth=(client, "any secret"))
            return str(answer.raise_for_status().json()["id_token"]).encode()


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    if find_spec("oidc_provider_mock") is None:
        reason = "oidc-provider-mock is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    provider = Provider(tmp_path / "provider.log")
    try:
        provider.start()
        yield provider
    finally:
        provider.stop()


class Proxy:
    """The part of a proxy that judges tokens."""

    def __init__(self, provider: Provider, audience: str = "ollama") -> None:
        issuer = Issuer(
            provider.url,
            frozenset({audience}),
            frozenset({"RS256"}),
            discovery=True,
            scope_claim="ollama",
            models_claim="models",
            cloud_claim="cloud",
        )
        self.verifier = TokenVerifier([issuer])
        self.keys = IssuerKeys(issuer, self.verifier.replace_keys)

    async def judge(self, token: bytes) -> Identity | UnknownKey | Refusal:
        found = self.verifier.verify(token, time.time())
        if isinstance(found, UnknownKey):
            over = self.keys.refresh_wanted()
            if over is None:
                return Refusal.INVALID
            await over
            found = self.verifier.verify(token, time.time())
        return found


def test_its_tokens_let_its_users_in_with_what_their_claims_grant(provider: Provider) -> None:
    async def scenario() -> None:
        proxy, stranger = Proxy(provider), Proxy(provider, audience="other")
        tasks = [asyncio.create_task(one.keys.run()) for one in (proxy, stranger)]
        alice = await asyncio.to_thread(provider.id_token, "alice")
        bob = await asyncio.to_thread(provider.id_token, "bob")
        other = await asyncio.to_thread(provider.id_token, "alice", "other")
        scopes = frozenset({"read", "inference"})
        assert await proxy.judge(alice) == Identity(
            "jwt", None, "alice", scopes, models=("llama3.2:*",), cloud=True
        )
        assert await proxy.judge(bob) == Identity("jwt", None, "bob", frozenset({"read"}), models=())
        assert await proxy.judge(other) is Refusal.INVALID
        assert await stranger.judge(alice) is Refusal.INVALID
        assert isinstance(await stranger.judge(other), Identity)
        head, _, signature = alice.rpartition(b".")
        assert await proxy.judge(head + b"." + signature[::-1]) is Refusal.INVALID
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(scenario())


def test_its_rotation_and_its_absence_are_lived_through(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "COOL_DOWN", 0.2)
    monkeypatch.setattr(issuer_keys, "RETRY_INTERVAL", 60.0)

    async def scenario() -> None:
        proxy = Proxy(provider)
        task = asyncio.create_task(proxy.keys.run())
        first = await asyncio.to_thread(provider.id_token, "alice")
        assert isinstance(await proxy.judge(first), Identity)

        await asyncio.to_thread(provider.stop)
        assert isinstance(await proxy.judge(first), Identity), "away: what was known stays good"
        forged = first[:-8] + b"AAAAAAAA"
        assert not isinstance(await proxy.judge(forged), Identity)
        assert proxy.keys.failures == 1
        proxy.verifier.clear()
        assert isinstance(await proxy.judge(first), Identity), "away: and is checked with the keys at hand"

        await asyncio.to_thread(provider.start)  # with another key
        second = await asyncio.to_thread(provider.id_token, "alice")
        await asyncio.sleep(0.3)  # the cool-down
        assert isinstance(await proxy.judge(second), Identity)
        assert not isinstance(await proxy.judge(first), Identity), "the key that left counts no more"
        age = proxy.keys.age()
        assert age is not None
        assert age < PATIENCE
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())
