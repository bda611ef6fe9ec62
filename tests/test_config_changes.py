"""What a new configuration changes, what waits for a restart, and when files are read again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Config, ConfigError, load
from proxy.config import follow as following
from proxy.config.changes import NEED_A_RESTART, changed, waiting
from proxy.config.fault import Fault
from proxy.config.follow import Signatures, files_of, follow, signatures
from tests.certificates import ec_key, write_pair

EMPTY: dict[str, str] = {}
LOOK = 0.03
"""Seconds between two looks, in these tests."""


def config(folder: Path, text: str = "") -> Config:
    file = folder / "config.toml"
    file.write_text(text)
    return load(file, EMPTY)


OPTIONS = {
    "listen.address": 'listen.address = "127.0.0.1:1"',
    "listen.max_connections": "listen.max_connections = 7",
    "listen.max_header_bytes": 'listen.max_header_bytes = "64KiB"',
    "listen.header_timeout": 'listen.header_timeout = "1s"',
    "listen.idle_timeout": 'listen.idle_timeout = "1s"',
    "listen.drain_timeout": 'listen.drain_timeout = "1s"',
    "listen.trusted_proxies": 'listen.trusted_proxies = ["10.0.0.0/8"]',
    "upstream.url": 'upstream.url = "http://127.0.0.1:9"',
    "upstream.connect_timeout": 'upstream.connect_timeout = "1s"',
    "ops.address": 'ops.address = "127.0.0.1:2"',
    "store.url": 'store.url = "sqlite:///other.db"',
    "store.usage_retention": 'store.usage_retention = "7d"',
    "auth.anonymous": "auth.anonymous = []",
    "auth.api_keys": "auth.api_keys = false",
    "auth.ssh_signatures": "auth.ssh_signatures = false",
    "auth.path_keys": "auth.path_keys = true",
    "auth.failures_per_minute": "auth.failures_per_minute = 1",
    "policy.cloud": "policy.cloud = true",
    "policy.max_guarded_body": 'policy.max_guarded_body = "1MiB"',
    "cors.allow_origins": 'cors.allow_origins = ["*"]',
    "log.format": 'log.format = "text"',
    "log.level": 'log.level = "debug"',
    "log.access": "log.access = false",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_change_of_an_option_is_told_by_its_name(name: str, tmp_path: Path) -> None:
    before, after = config(tmp_path), config(tmp_path, OPTIONS[name])
    assert changed(before, after) == changed(after, before) == {name}
    assert waiting(before, after) == waiting(after, before) == {name} & NEED_A_RESTART


def test_the_other_options_are_files_and_issuers(tmp_path: Path) -> None:
    every = {
        f"{table}.{key}"
        for table, field in Config.model_fields.items()
        for key in field.annotation.model_fields  # type: ignore[union-attr]
    }
    assert every - set(OPTIONS) == {
        *("tls.mode", "tls.certificate", "tls.private_key", "tls.client_ca", "tls.client_auth"),
        *("ops.token_file", "auth.jwt"),
    }
    assert every >= NEED_A_RESTART


def test_changes_add_up(tmp_path: Path) -> None:
    before = config(tmp_path)
    apart = {"auth.api_keys"}  # goes not with auth.path_keys
    for names in (set(OPTIONS) - apart, {"log.level", "store.url", "policy.cloud"}, apart):
        after = config(tmp_path, "\n".join(OPTIONS[name] for name in sorted(names)))
        assert changed(before, after) == names
        assert waiting(before, after) == names & NEED_A_RESTART


def test_a_token_that_changes_in_its_file_is_a_change(tmp_path: Path) -> None:
    text = 'ops.token_file = "token"'
    (tmp_path / "token").write_text("first-secret")
    before = config(tmp_path, text)
    (tmp_path / "token").write_text("second-secret")
    assert changed(before, config(tmp_path, text)) == {"ops.token_file"}
    assert "first-secret" not in repr(before)


@pytest.mark.parametrize(
    ("before", "after", "waits"),
    [
        ("off", "self-signed", True),
        ("self-signed", "off", True),
        ("off", "files", True),
        ("files", "self-signed", False),
        ("self-signed", "files", False),
        ("off", "off", False),
    ],
)
def test_tls_is_turned_on_and_off_by_a_restart_alone(
    before: str, after: str, waits: bool, tmp_path: Path
) -> None:
    write_pair(tmp_path, "own", ec_key())
    texts = {
        "files": 'tls = {mode = "files", certificate = "own.crt", private_key = "own.key"}',
        "off": 'tls.mode = "off"',
        "self-signed": "",
    }
    old, new = (config(tmp_path, texts[mode]) for mode in (before, after))
    assert waiting(old, new) == ({"tls.mode"} if waits else set())


# Files


class Seen:
    """What `follow` handed on: configurations and faults, in order."""

    def __init__(self, folder: Path, text: str = "") -> None:
        self.file = folder / "config.toml"
        self.asked = asyncio.Event()
        self.found: list[Config | str] = []
        self.loads = 0
        self.refuse = ""
        self.first: Signatures | None = None
        self.config = config(folder, text)

    def load(self) -> Config:
        self.loads += 1
        return load(self.file, EMPTY)

    def on_change(self, new: Config) -> None:
        if self.refuse:
            raise ConfigError((Fault("tls", self.refuse, "mend it"),))
        self.found.append(new)

    def on_fault(self, fault: ConfigError) -> None:
        self.found.append(str(fault))

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        task = asyncio.create_task(
            follow(self.file, self.config, self.load, self.asked, self.on_change, self.on_fault, self.first)
        )
        await asyncio.sleep(LOOK / 2)
        yield
        assert not task.done(), "it goes on"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def until(self, count: int) -> None:
        deadline = time.monotonic() + 5
        while len(self.found) < count and time.monotonic() < deadline:
            await asyncio.sleep(LOOK / 10)
        assert len(self.found) == count, self.found

    def faults(self) -> list[str]:
        return [one for one in self.found if isinstance(one, str)]


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "INTERVAL", LOOK)


Work = Callable[[Seen], Coroutine[Any, Any, None]]


def run(seen: Seen, work: Work) -> None:
    async def within() -> None:
        seen.asked = asyncio.Event()
        async with seen.followed():
            await work(seen)

    asyncio.run(within())


def test_what_does_not_change_is_not_read(tmp_path: Path) -> None:
    async def work(seen: Seen) -> None:
        await asyncio.sleep(8 * LOOK)
        assert (seen.found, seen.loads) == ([], 0)

    run(Seen(tmp_path), work)


def test_a_change_is_read_once(tmp_path: Path) -> None:
    async def work(seen: Seen) -> None:
        seen.file.write_text("policy.cloud = true")
        await seen.until(1)
        assert isinstance(seen.found[0], Config)
        assert seen.found[0].policy.cloud
        await asyncio.sleep(6 * LOOK)
        assert seen.loads == 1

    run(Seen(tmp_path), work)


def test_when_it_is_asked_for_it_is_read_though_nothing_changed(tmp_path: Path) -> None:
    async def work(seen: Seen) -> None:
        for count in range(1, 4):
            seen.asked.set()
            await seen.until(count)

    run(Seen(tmp_path), work)


def test_while_a_file_keeps_changing_it_is_not_read(tmp_path: Path) -> None:
    async def work(seen: Seen) -> None:
        for number in range(40):
            seen.file.write_text(f"listen.max_connections = {number + 1}")
            await asyncio.sleep(LOOK / 4)
        before = seen.loads
        await seen.until(before + 1)
        last = seen.found[-1]
        assert isinstance(last, Config)
        assert last.listen.max_connections == 40
        assert before <= 1, "a slow machine may miss a change between two looks"

    run(Seen(tmp_path), work)


def test_what_changed_while_the_proxy_started_is_read(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.first = signatures([seen.file, *files_of(seen.config)])
    seen.file.write_text("policy.cloud = true")

    async def work(seen: Seen) -> None:
        await seen.until(1)
        await asyncio.sleep(6 * LOOK)
        assert seen.loads == 1

    run(seen, work)


def test_a_certificate_that_the_proxy_made_as_it_started_is_no_change(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.first = signatures([seen.file, *files_of(seen.config)])
    (tmp_path / "data").mkdir()
    write_pair(tmp_path / "data", "tls", ec_key())

    async def work(seen: Seen) -> None:
        await asyncio.sleep(8 * LOOK)
        assert seen.loads == 0

    run(seen, work)


def test_a_fault_is_told_once_and_again_when_it_is_another_or_asked_for(tmp_path: Path) -> None:
    async def work(seen: Seen) -> None:
        seen.file.write_text("policy.cloud = 1")
        await seen.until(1)
        await asyncio.sleep(6 * LOOK)
        assert len(seen.found) == 1
        assert seen.loads > 1, "it is tried again"
        seen.asked.set()
        await seen.until(2)
        seen.file.write_text("policy.cloud = 1\nlog.level = 1")
        await seen.until(3)
        assert len(seen.faults()[2].splitlines()) == 2
        seen.file.write_text("policy.cloud = true")
        await seen.until(4)
        assert isinstance(seen.found[3], Config)
        loads = seen.loads
        await asyncio.sleep(6 * LOOK)
        assert seen.loads == loads, "and then no more"

    run(Seen(tmp_path), work)


def test_a_file_that_goes_and_comes_back(tmp_path: Path) -> None:
    async def work(seen: Seen) -> None:
        seen.file.unlink()
        await seen.until(1)
        assert "cannot be read" in seen.faults()[0]
        seen.file.write_text("")
        await seen.until(2)
        assert isinstance(seen.found[1], Config)

    run(Seen(tmp_path), work)


def test_what_is_refused_by_its_taker_is_a_fault_too(tmp_path: Path) -> None:
    async def work(seen: Seen) -> None:
        seen.refuse = "does not fit"
        seen.asked.set()
        await seen.until(1)
        assert seen.found == ["tls: does not fit; mend it"]
        seen.refuse = ""
        await seen.until(2)
        assert isinstance(seen.found[1], Config)

    run(Seen(tmp_path), work)


def test_files_that_the_configuration_names_are_followed_and_those_it_named_are_not(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("first")
    (tmp_path / "two").write_text("first")

    async def work(seen: Seen) -> None:
        (tmp_path / "one").write_text("second")
        await seen.until(1)
        seen.file.write_text('ops.token_file = "two"')
        await seen.until(2)
        (tmp_path / "one").write_text("third")
        await asyncio.sleep(6 * LOOK)
        assert len(seen.found) == 2
        (tmp_path / "two").write_text("second")
        await seen.until(3)
        assert isinstance(seen.found[2], Config)
        assert seen.found[2].ops.token == "second"

    run(Seen(tmp_path, 'ops.token_file = "one"'), work)


def test_a_pair_that_is_replaced_file_by_file_is_never_read_half(tmp_path: Path) -> None:
    write_pair(tmp_path, "own", ec_key())

    async def work(seen: Seen) -> None:
        for _ in range(4):
            new = tmp_path / "new"
            new.mkdir(exist_ok=True)
            write_pair(new, "own", ec_key())
            count = len(seen.found)
            os.replace(new / "own.crt", tmp_path / "own.crt")
            await asyncio.sleep(LOOK / 3)
            os.replace(new / "own.key", tmp_path / "own.key")
            await seen.until(count + 1)
        assert not seen.faults()

    run(Seen(tmp_path, 'tls = {mode = "files", certificate = "own.crt", private_key = "own.key"}'), work)


def test_a_swapped_link_changes_the_signature_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    """Kubernetes mounts so, and image layers have one time for all files."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "file").write_text(version)
        os.utime(tmp_path / version / "file", (1, 1))
    link, file = tmp_path / "data", tmp_path / "file"
    link.symlink_to("1")
    file.symlink_to("data/file")
    before = signatures([file])
    (tmp_path / "next").symlink_to("2")
    os.replace(tmp_path / "next", link)
    assert signatures([file]) != before


def test_what_cannot_be_looked_at_has_no_signature(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    odd = [tmp_path / "gone", tmp_path / "loop", tmp_path / "file" / "below", tmp_path / ("x" * 300)]
    assert signatures(odd) == dict.fromkeys(odd)


def test_the_files_are_those_that_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    found = files_of(config(tmp_path, 'ops.token_file = "token"'))
    assert found == [tmp_path / "data" / "tls.crt", tmp_path / "data" / "tls.key", tmp_path / "token"]
    assert files_of(config(tmp_path, 'tls.mode = "off"')) == []
