"""An issuer's keys while it rotates them, is away, is flooded with unknown names, or its file changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from functools import wraps
from pathlib import Path

import pytest

from proxy.identity import issuer_keys, jwks_fetch
from proxy.identity.api_keys import Refusal
from proxy.identity.identity import Identity
from proxy.identity.issuer import Issuer
from proxy.identity.issuer_keys import IssuerKeys
from proxy.identity.jwt import TokenVerifier, UnknownKey
from proxy.identity.key_set import KeySet

from .issuer_server import DISCOVERY, KEYS, Answer, IssuerServer, issuer_server
from .tokens import SECRET, Signer, claims, issuer, jwks, key_set, signer

OLD, NEW = signer("RS256", "old", 1), signer("RS256", "new", 2)
PATIENCE = 5.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[IssuerServer]:
    with issuer_server(tmp_path) as server:
        server.publish(OLD)
        server.describe()
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches that fail are tried again at once, files are looked at often; the cool-down stays."""
    monkeypatch.setattr(issuer_keys, "LOOK_INTERVAL", 0.02)
    monkeypatch.setattr(issuer_keys, "RETRY_INTERVAL", 0.05)


class Joined:
    """The keys and the verifier, joined as the proxy joins them."""

    def __init__(self, one: Issuer) -> None:
        self.issuer = one
        self.verifier = TokenVerifier([one])
        self.keys = IssuerKeys(one, self.on_change)
        self.changes = 0

    def on_change(self, one: Issuer, keys: KeySet) -> None:
        self.changes += 1
        self.verifier.replace_keys(one, keys)

    def token(self, ours: Signer, **told: object) -> bytes:
        return ours.token(claims(iss=self.issuer.issuer, exp=time.time() + 300, nbf=..., iat=..., **told))

    async def lets_in(self, token: bytes) -> bool:
        """As the authenticator asks: once more after a fetch."""
        found = self.verifier.verify(token, time.time())
        if isinstance(found, UnknownKey):
            assert found.issuer is self.issuer
            over = self.keys.refresh_wanted()
            if over is None:
                return False
            await over
            found = self.verifier.verify(token, time.time())
        assert isinstance(found, (Identity, UnknownKey, Refusal))
        return isinstance(found, Identity)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(one: Issuer) -> AsyncIterator[Joined]:
    joined = Joined(one)
    task = asyncio.create_task(joined.keys.run())
    try:
        await asyncio.sleep(0)
        yield joined
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"


@asynccontextmanager
async def fetching(server: IssuerServer, **settings: object) -> AsyncIterator[Joined]:
    """After the first fetch."""
    one = issuer(**({"discovery": True, "issuer": server.url, "ca_file": server.ca_file} | settings))
    async with running(one) as joined:
        await joined.until(lambda: joined.keys.age() is not None)
        yield joined


def in_a_loop(scenario: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    @wraps(scenario)
    def run(*arguments: object, **named: object) -> None:
        asyncio.run(scenario(*arguments, **named))

    return run


def test_what_users_are_promised() -> None:
    assert (issuer_keys.REFRESH_INTERVAL, issuer_keys.COOL_DOWN) == (300.0, 30.0)


# Rotation


@in_a_loop
async def test_keys_are_fetched_at_start(server: IssuerServer) -> None:
    async with fetching(server) as joined:
        assert await joined.lets_in(joined.token(OLD))
        assert server.requests == [DISCOVERY, KEYS]
        assert joined.changes == 1
        assert joined.keys.failures == 0


@in_a_loop
async def test_a_request_that_comes_before_the_first_keys_waits_for_them(server: IssuerServer) -> None:
    server.answers[KEYS].wait = 0.3
    async with running(issuer(discovery=True, issuer=server.url, ca_file=server.ca_file)) as joined:
        assert joined.keys.age() is None
        assert await joined.lets_in(joined.token(OLD))
        assert server.requests == [DISCOVERY, KEYS]


@in_a_loop
async def test_a_new_key_is_fetched_when_a_token_names_it(server: IssuerServer) -> None:
    async with fetching(server) as joined:
        before = joined.token(OLD)
        assert await joined.lets_in(before)
        server.publish(OLD, NEW)
        assert await joined.lets_in(joined.token(NEW))
        assert await joined.lets_in(before)
        server.publish(NEW)  # the old one has left; the cool-down keeps us from seeing it yet
        assert await joined.lets_in(before)
        assert server.requests == [DISCOVERY, KEYS, KEYS]


@in_a_loop
async def test_an_issuer_that_writes_no_kid_can_rotate_too(server: IssuerServer) -> None:
    async with fetching(server) as joined:
        server.publish(NEW)
        assert await joined.lets_in(joined.token(Signer("RS256", NEW.key, None)))


@in_a_loop
async def test_in_the_background_keys_come_and_go(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "REFRESH_INTERVAL", 0.05)
    async with fetching(server) as joined:
        token = joined.token(OLD)
        assert await joined.lets_in(token), "and is remembered from now on"
        server.publish(NEW)
        await joined.until(lambda: joined.changes == 2)
        assert not await joined.lets_in(token)
        assert await joined.lets_in(joined.token(NEW))
        await joined.until(lambda: len(server.requests) > 6)
        assert joined.changes == 2, "the same keys are no change"
        server.answers[KEYS] = Answer(b'{"keys":[]}')
        await joined.until(lambda: joined.changes == 3)
        assert not await joined.lets_in(joined.token(NEW))


@in_a_loop
async def test_a_fetch_on_demand_counts_as_the_next_one_in_the_background(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "REFRESH_INTERVAL", 0.4)
    async with fetching(server) as joined:
        await asyncio.sleep(0.3)
        assert not await joined.lets_in(joined.token(NEW))
        await asyncio.sleep(0.3)
        assert server.requests == [DISCOVERY, KEYS, KEYS]


# Floods


@in_a_loop
async def test_a_flood_of_unknown_names_costs_the_issuer_one_request(server: IssuerServer) -> None:
    async with fetching(server) as joined:
        tokens = [joined.token(Signer("RS256", NEW.key, f"kid {number}")) for number in range(500)]
        assert not any(await asyncio.gather(*map(joined.lets_in, tokens)))
        for token in tokens:
            assert not await joined.lets_in(token)
        assert server.requests == [DISCOVERY, KEYS, KEYS]
        assert await joined.lets_in(joined.token(OLD)), "the keys at hand are still there"
        assert joined.changes == 1


@in_a_loop
async def test_after_the_cool_down_another_fetch_is_allowed(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "COOL_DOWN", 0.3)
    async with fetching(server) as joined:
        begun = time.monotonic()
        number = 0
        while time.monotonic() - begun < 1.0:
            number += 1
            await joined.lets_in(joined.token(Signer("ES256", signer("ES256").key, f"kid {number}")))
            await joined.lets_in(joined.token(Signer("RS256", NEW.key, f"kid {number}")))
            await asyncio.sleep(0.01)
        assert server.requests.count(KEYS) in (4, 5)  # at start, and at 0, 0.3, 0.6 and 0.9 s


@in_a_loop
async def test_a_flood_while_the_issuer_is_away_is_one_attempt_a_cool_down(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "RETRY_INTERVAL", 60.0)
    async with fetching(server) as joined:
        server.stop()
        for number in range(300):
            assert not await joined.lets_in(joined.token(Signer("RS256", NEW.key, f"kid {number}")))
        assert joined.keys.failures == 1
        assert await joined.lets_in(joined.token(OLD))


@in_a_loop
async def test_those_who_wait_for_a_slow_issuer_wait_for_one_fetch(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_fetch, "TIMEOUT", 0.5)
    async with fetching(server) as joined:
        server.answers[KEYS].wait = 30
        server.answers[DISCOVERY].wait = 30
        begun = time.monotonic()
        tokens = [joined.token(Signer("RS256", NEW.key, f"kid {number}")) for number in range(50)]
        assert not any(await asyncio.gather(*map(joined.lets_in, tokens)))
        assert time.monotonic() - begun < 1.5
        assert await joined.lets_in(joined.token(OLD))
        assert server.requests.count(KEYS) <= 3


# Outage


@in_a_loop
async def test_while_the_issuer_is_away_its_keys_stay_and_their_age_is_told(server: IssuerServer) -> None:
    async with fetching(server) as joined:
        server.stop()
        assert not await joined.lets_in(joined.token(NEW))
        await joined.until(lambda: joined.keys.failures >= 3)
        assert await joined.lets_in(joined.token(OLD))
        first = joined.keys.age()
        await asyncio.sleep(0.1)
        second = joined.keys.age()
        assert first is not None
        assert second is not None
        assert second - first > 0.09
        server.publish(NEW)
        server.start()
        await joined.until(lambda: joined.changes == 2)
        assert await joined.lets_in(joined.token(NEW))
        assert not await joined.lets_in(joined.token(OLD))
        age = joined.keys.age()
        assert age is not None
        assert age < 1


@in_a_loop
async def test_an_issuer_that_is_away_at_the_start_is_tried_until_it_is_there(server: IssuerServer) -> None:
    server.stop()
    async with running(issuer(discovery=True, issuer=server.url, ca_file=server.ca_file)) as joined:
        await joined.until(lambda: joined.keys.failures >= 2)
        assert joined.keys.age() is None
        assert not await joined.lets_in(joined.token(OLD))
        server.start()
        await joined.until(lambda: joined.keys.age() is not None)
        assert await joined.lets_in(joined.token(OLD))


@pytest.mark.parametrize(
    "answer",
    [Answer(status=500), Answer(b"<html>"), Answer(b"{}"), Answer(b"", 302, {"Location": "/other"}),
     Answer(b'{"keys":[', endless=True), Answer(jwks(NEW.jwk())[:-1])],
    ids=["500", "HTML", "no keys", "redirect", "endless", "cut"],
)  # fmt: skip
@in_a_loop
async def test_a_bad_answer_leaves_the_keys_as_they_are(server: IssuerServer, answer: Answer) -> None:
    async with fetching(server) as joined:
        server.answers[KEYS] = answer
        assert not await joined.lets_in(joined.token(NEW))
        assert joined.keys.failures >= 1
        assert joined.keys.keys == key_set(OLD)
        assert await joined.lets_in(joined.token(OLD))
        assert joined.changes == 1


@in_a_loop
async def test_a_fault_of_ours_does_not_end_the_task(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: object) -> KeySet:
        raise RuntimeError("hunter2")

    async with fetching(server) as joined:
        with monkeypatch.context() as patch:
            patch.setattr(jwks_fetch.JwksFetch, "fetch", broken)
            assert not await joined.lets_in(joined.token(NEW))
            assert joined.keys.failures >= 1
        server.publish(NEW)
        await joined.until(lambda: joined.changes == 2)
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


# Waiting, and not


@in_a_loop
async def test_a_request_that_ends_while_it_waits_disturbs_nobody(server: IssuerServer) -> None:
    async with fetching(server) as joined:
        server.publish(NEW)
        server.answers[KEYS].wait = 0.2
        leaving, staying = (asyncio.create_task(joined.lets_in(joined.token(NEW))) for _ in range(2))
        await asyncio.sleep(0.05)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        assert await staying


@in_a_loop
async def test_when_the_task_ends_nobody_is_left_waiting(server: IssuerServer) -> None:
    joined = Joined(issuer(discovery=True, issuer=server.url, ca_file=server.ca_file))
    assert joined.keys.refresh_wanted() is None, "nobody would fetch"
    server.answers[KEYS].wait = 30
    for _ in range(2):  # it can be begun again
        task = asyncio.create_task(joined.keys.run())
        await asyncio.sleep(0.05)
        over = joined.keys.refresh_wanted()
        assert over is not None
        task.cancel()
        async with asyncio.timeout(1):
            await over
            await asyncio.wait([task])
        assert task.cancelled()
        assert joined.keys.refresh_wanted() is None
        assert asyncio.all_tasks() == {asyncio.current_task()}


# Files


@in_a_loop
async def test_keys_in_a_file_are_there_before_anything_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(jwks(OLD.jwk()))
    async with running(issuer(jwks_file=file)) as joined:
        assert await joined.lets_in(joined.token(OLD))


@in_a_loop
async def test_a_changed_file_is_followed_and_a_broken_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(jwks(OLD.jwk()))
    async with running(issuer(jwks_file=file)) as joined:
        token = joined.token(OLD)
        assert await joined.lets_in(token)
        for broken in (b"", b"{", None):
            if broken is None:
                file.unlink()
            else:
                file.write_bytes(broken)
            failures = joined.keys.failures
            await joined.until(lambda failures=failures: joined.keys.failures > failures)
            assert await joined.lets_in(joined.token(OLD, sub="bob"))
        file.write_bytes(jwks(NEW.jwk()))
        await joined.until(lambda: joined.changes == 2)
        assert await joined.lets_in(joined.token(NEW))
        assert not await joined.lets_in(token)


@in_a_loop
async def test_a_changed_secret_counts_and_the_old_one_ends(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(SECRET + b"\n")
    async with running(issuer("HS256", secret_file=file)) as joined:
        first, second = Signer("HS256", SECRET, None), Signer("HS256", SECRET[::-1], None)
        assert await joined.lets_in(joined.token(first))
        assert not await joined.lets_in(joined.token(second))
        file.write_bytes(SECRET[::-1])
        await joined.until(lambda: joined.changes == 2)
        assert await joined.lets_in(joined.token(second))
        assert not await joined.lets_in(joined.token(first))


@in_a_loop
async def test_no_token_makes_us_look_at_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(jwks(OLD.jwk()))
    async with running(issuer(jwks_file=file)) as joined:
        assert joined.keys.refresh_wanted() is None


# What the log says


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "ollama_auth_proxy"]


@in_a_loop
async def test_each_change_is_told_once(
    server: IssuerServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(issuer_keys, "REFRESH_INTERVAL", 0.03)
    async with fetching(server) as joined:
        name = f"issuer {server.url}"
        server.stop()
        assert not await joined.lets_in(joined.token(NEW))
        await joined.until(lambda: joined.keys.failures > 3)
        server.answers[KEYS] = Answer(jwks(OLD.jwk(), NEW.jwk(), NEW.jwk(kid="weak", use="enc")))
        server.start()
        await joined.until(lambda: joined.changes == 2)
        await asyncio.sleep(0.1)
        server.stop()
        monkeypatch.setattr(issuer_keys, "COOL_DOWN", 0.0)
        assert not await joined.lets_in(joined.token(Signer("RS256", NEW.key, "third")))
    away = "the keys cannot be read: it cannot be reached"
    assert lines(caplog) == [
        f"{name}: 1 keys in use, 0 published ones cannot be used",
        f"{name}: {away}; the 1 that were read before stay in force",
        f"{name}: 2 keys in use, 1 published ones cannot be used",
        f"{name}: {away}; the 2 that were read before stay in force",
    ]
    assert [record.levelname for record in caplog.records if record.name == "ollama_auth_proxy"] == [
        "INFO", "WARNING", "INFO", "WARNING",
    ]  # fmt: skip


@in_a_loop
async def test_an_issuer_that_publishes_nothing_usable_is_warned_about(
    server: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.publish()
    async with fetching(server):
        pass
    assert lines(caplog) == [f"issuer {server.url}: 0 keys in use, 0 published ones cannot be used"]
    assert caplog.records[0].levelname == "WARNING"


@in_a_loop
async def test_no_log_line_names_a_user_or_a_token(
    server: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ollama_auth_proxy")
    name = "https://someone:hunter2@issuer.example/realm"
    one = issuer(jwks_url=server.url + KEYS, issuer=name, ca_file=server.ca_file)
    async with running(one) as joined:
        await joined.until(lambda: joined.changes == 1)
        server.stop()
        token = joined.token(NEW)
        assert not await joined.lets_in(token)
    assert "issuer https://issuer.example/realm: " in caplog.text
    assert "hunter2" not in caplog.text
    assert token.decode().split(".")[1] not in caplog.text
