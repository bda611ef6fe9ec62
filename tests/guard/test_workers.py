"""Large bodies are read by processes of their own: real ones here, and what is told when they fail."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest

from proxy.errors import ProxyError
from proxy.guard import workers
from proxy.guard.judge import Asked, judge
from proxy.guard.workers import SHORT, Workers
from proxy.policy.routes import match

CHAT = match("POST", b"/api/chat")
assert CHAT is not None
ASKED = Asked(CHAT, None)
MIB = 1024 * 1024


def body(size: int, model: str = "good") -> list[bytes]:
    whole = b'{"model":"%s","images":["%s"]}' % (model.encode(), b"A" * size)
    return [whole[start : start + 100_000] for start in range(0, len(whole), 100_000)]


async def ask(pool: Workers, pieces: list[bytes]) -> str:
    """The name in a body, or the code of the refusal."""
    try:
        found = await pool.judge(ASKED, pieces, sum(map(len, pieces)))
    except ProxyError as error:
        return error.code
    return found.names[0].canonical


async def with_workers(*bodies: list[bytes]) -> list[str]:
    pool = Workers(8 * MIB)
    try:
        return [await ask(pool, one) for one in bodies]
    finally:
        pool.close()
        await asyncio.sleep(0.1)  # until their pipes are closed too


@pytest.mark.parametrize("size", [10, SHORT, 4 * MIB])
def test_a_body_is_read_as_it_would_be_here(size: int) -> None:
    pieces = body(size)
    assert asyncio.run(with_workers(pieces)) == [judge(ASKED, pieces).names[0].canonical]


def test_many_at_once_get_their_own_answers() -> None:
    async def all_at_once() -> list[str]:
        pool = Workers(8 * MIB)
        try:
            bodies = [body(200_000 + number * 100_000, f"m{number}") for number in range(12)]
            return await asyncio.gather(*(ask(pool, one) for one in bodies))
        finally:
            pool.close()
            await asyncio.sleep(0.1)  # until their pipes are closed too

    assert asyncio.run(all_at_once()) == [f"m{number}:latest" for number in range(12)]


def test_a_body_that_takes_too_much_memory_is_refused_and_the_next_one_read() -> None:
    pieces = [b'{"model":"good","x":[' + b"[]," * (2_600_000) + b"0]}"]
    small = Workers(64 * 1024)  # a process with little memory

    async def run() -> list[str]:
        small._long._memory = 160 * MIB
        try:
            return [await ask(small, pieces), await ask(small, body(2 * MIB))]
        finally:
            small.close()
            await asyncio.sleep(0.1)  # until their pipes are closed too

    assert asyncio.run(run()) == ["body_too_large", "good:latest"]


def test_a_body_that_takes_too_long_is_refused_and_the_next_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[str]:
        pool = Workers(64 * MIB)
        try:
            assert await ask(pool, body(2 * MIB)) == "good:latest"  # it runs
            monkeypatch.setattr(workers, "TIME", 0.05)
            first = await ask(pool, [b'{"model":"good","x":[' + b"1.5," * (3 * MIB) + b"0]}"])
            monkeypatch.setattr(workers, "TIME", 20.0)
            return [first, await ask(pool, body(2 * MIB))]
        finally:
            pool.close()
            await asyncio.sleep(0.1)  # until their pipes are closed too

    assert asyncio.run(run()) == ["body_too_large", "good:latest"]


def test_a_process_that_cannot_be_started_is_the_operators_business(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with caplog.at_level(logging.ERROR):
        assert asyncio.run(with_workers(body(100_000))) == ["internal_error"]
    assert "the process that reads large bodies failed" in caplog.text
    assert "AAAA" not in caplog.text


def test_no_more_than_some_wait_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MOST_WAITING", 3)

    async def run() -> list[str]:
        pool = Workers(8 * MIB)
        try:
            return await asyncio.gather(*(ask(pool, body(100_000)) for _ in range(5)))
        finally:
            pool.close()
            await asyncio.sleep(0.1)  # until their pipes are closed too

    assert sorted(asyncio.run(run())) == ["good:latest"] * 3 + ["queue_full"] * 2


def test_whoever_leaves_while_waiting_keeps_nobody_else_from_an_answer() -> None:
    async def run() -> str:
        pool = Workers(8 * MIB)
        try:
            leaving = [asyncio.create_task(ask(pool, body(4 * MIB))) for _ in range(4)]
            await asyncio.sleep(0.1)
            staying = asyncio.create_task(ask(pool, body(4 * MIB, "stays")))
            await asyncio.sleep(0)
            for task in leaving:
                task.cancel()
            return await staying
        finally:
            pool.close()
            await asyncio.sleep(0.1)  # until their pipes are closed too

    assert asyncio.run(run()) == "stays:latest"
