"""What probes are told: alive, and able to serve or why not."""

from __future__ import annotations

import asyncio
from itertools import product

import httpx
import pytest
from fastapi import FastAPI

from proxy.ops.health import Check, State, health_routes, worst

STATES: tuple[State, ...] = ("ok", "degraded", "failing")


def get(path: str, checks: dict[str, Check], method: str = "GET") -> httpx.Response:
    app = FastAPI()
    app.include_router(health_routes(lambda: checks))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ops") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


def saying(state: State, reason: str = "") -> Check:
    return lambda: (state, reason)


@pytest.mark.parametrize("first", STATES)
@pytest.mark.parametrize("second", STATES)
@pytest.mark.parametrize("third", STATES)
def test_the_whole_is_as_well_as_its_worst_part(first: State, second: State, third: State) -> None:
    states = {first, second, third}
    expected = "failing" if "failing" in states else "degraded" if "degraded" in states else "ok"
    assert worst([first, second, third]) == expected


def test_without_a_part_nothing_is_wrong() -> None:
    assert worst([]) == "ok"


@pytest.mark.parametrize(("store", "upstream"), list(product(STATES, STATES)))
def test_readyz_is_200_unless_something_fails_and_says_what(store: State, upstream: State) -> None:
    answer = get("/readyz", {"store": saying(store, "locked"), "upstream": saying(upstream, "gone")})
    status = worst([store, upstream])
    assert answer.status_code == (503 if status == "failing" else 200)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "status": status,
        "checks": {
            "store": {"status": store, "reason": "locked"},
            "upstream": {"status": upstream, "reason": "gone"},
        },
    }


def test_where_all_is_well_there_is_no_reason() -> None:
    answer = get("/readyz", {"store": saying("ok"), "upstream": saying("ok")})
    assert answer.json() == {
        "status": "ok",
        "checks": {"store": {"status": "ok"}, "upstream": {"status": "ok"}},
    }


def test_the_checks_are_made_anew_for_each_probe() -> None:
    states = iter(STATES)
    checks: dict[str, Check] = {"store": lambda: (next(states), "")}
    assert [get("/readyz", checks).status_code for _ in STATES] == [200, 200, 503]


@pytest.mark.parametrize("state", STATES)
def test_healthz_says_alive_whatever_readyz_says(state: State) -> None:
    answer = get("/healthz", {"store": saying(state, "locked")})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_only_read(path: str) -> None:
    assert get(path, {}, method="POST").status_code == 405
