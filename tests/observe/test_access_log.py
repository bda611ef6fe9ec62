"""The line that each request leaves: its members, its two formats, and the batches it is written in."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ERRORS
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.observe.access_log import FLUSH_AFTER, AccessLog, Entry, as_json, as_text, timestamp
from proxy.observe.log_stream import LogStream
from proxy.policy.routes import OTHER, ROUTES

# The contract with users, in this order.
MEMBERS = [
    "time", "request_id", "client", "method", "route", "status", "code", "key_id", "key_name", "auth",
    "model", "received_bytes", "sent_bytes", "duration_ms", "queue_ms", "first_byte_ms", "input_tokens",
    "output_tokens", "outcome",
]  # fmt: skip

EPOCH = 1_800_000_000.0

LAPTOP = Identity("api_key", "0123456789", "Ann's laptop", frozenset({"read"}))


def an_entry(
    *,
    request_id: bytes = b"req-1",
    client: str = "192.0.2.7",
    method: str = "POST",
    route: str = "/api/chat",
    status: int = 200,
    code: str | None = None,
    identity: Identity | None = LAPTOP,
    model: str | None = None,
    received: int = 10,
    sent: int = 2000,
    started_at: float = 100.0,
    ended_at: float = 101.5,
    first_byte_at: float = 100.25,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    outcome: str = "ok",
) -> Entry:
    return Entry(
        request_id, client, method, route, status, code, identity, model, received, sent, started_at,
        ended_at, first_byte_at, input_tokens, output_tokens, outcome,
    )  # fmt: skip


def test_a_line_tells_all_that_the_contract_names() -> None:
    line = as_json(an_entry(ended_at=101.5), EPOCH)
    document = json.loads(line)
    assert list(document) == MEMBERS
    assert datetime.fromisoformat(document.pop("time")).timestamp() == EPOCH + 101.5
    assert document == {
        "request_id": "req-1",
        "client": "192.0.2.7",
        "method": "POST",
        "route": "/api/chat",
        "status": 200,
        "code": None,
        "key_id": "0123456789",
        "key_name": "Ann's laptop",
        "auth": "api_key",
        "model": None,
        "received_bytes": 10,
        "sent_bytes": 2000,
        "duration_ms": 1500.0,
        "queue_ms": 0,
        "first_byte_ms": 250.0,
        "input_tokens": None,
        "output_tokens": None,
        "outcome": "ok",
    }


@pytest.mark.parametrize(
    ("identity", "code", "first_byte_at", "client"),
    list(
        product(
            [None, ANONYMOUS, LAPTOP, Identity("jwt", None, "ann@example.org", frozenset())],
            [None, *sorted(ERRORS)],
            [0.0, 100.5],
            ["", "::1", "2001:db8::7"],
        )
    ),
)
def test_a_line_is_json_with_every_member_whatever_part_is_missing(
    identity: Identity | None, code: str | None, first_byte_at: float, client: str
) -> None:
    line = as_json(an_entry(identity=identity, code=code, first_byte_at=first_byte_at, client=client), EPOCH)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    document = json.loads(line)
    assert list(document) == MEMBERS
    assert document["client"] == client
    assert document["code"] == code
    assert document["first_byte_ms"] == (500.0 if first_byte_at else None)
    assert document["auth"] == (identity.auth if identity else None)
    assert document["key_id"] == (identity.key_id if identity else None)
    assert document["key_name"] == (identity.key_name if identity else None)


@pytest.mark.parametrize("outcome", ["ok", "denied", "client_closed", "upstream_failed", "aborted"])
@pytest.mark.parametrize("status", [200, 401, 404, 499, 502])
def test_a_line_tells_how_the_request_ended(outcome: str, status: int) -> None:
    document = json.loads(as_json(an_entry(outcome=outcome, status=status), EPOCH))
    assert (document["outcome"], document["status"]) == (outcome, status)


@pytest.mark.parametrize("route", sorted({route.path for route in ROUTES} | {OTHER}))
def test_the_route_is_the_row_of_the_table(route: str) -> None:
    assert json.loads(as_json(an_entry(route=route), EPOCH))["route"] == route


@given(
    # A request id is a plain token; a name is what the store accepts, or what a token's claim holds.
    request_id=st.from_regex(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", fullmatch=True),
    name=st.one_of(st.none(), st.text(max_size=20)),
    sizes=st.tuples(st.integers(0, 2**50), st.integers(0, 2**50)),
    seconds=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
)
def test_a_line_is_json_whatever_was_sent(
    request_id: bytes, name: str | None, sizes: tuple[int, int], seconds: tuple[float, float]
) -> None:
    started = 1000.0
    entry = an_entry(
        request_id=request_id,
        identity=Identity("api_key", "0123456789", name, frozenset()),
        received=sizes[0],
        sent=sizes[1],
        started_at=started,
        ended_at=started + seconds[0],
        first_byte_at=started + seconds[1],
    )
    line = as_json(entry, EPOCH)
    assert line.count("\n") == 1
    assert line.isascii()
    document = json.loads(line)
    assert list(document) == MEMBERS
    assert document["request_id"] == request_id.decode()
    assert document["key_name"] == name
    assert (document["received_bytes"], document["sent_bytes"]) == sizes
    assert document["duration_ms"] == pytest.approx(seconds[0] * 1000, abs=0.01)
    assert document["first_byte_ms"] == pytest.approx(seconds[1] * 1000, abs=0.01)


TEXTS = {
    "a key": (an_entry(), "192.0.2.7 Ann's laptop POST /api/chat 200 2000B 1500.0ms ok req-1"),
    "nobody": (
        an_entry(identity=None, status=401, code="invalid_credentials", outcome="denied"),
        "192.0.2.7 - POST /api/chat 401 invalid_credentials 2000B 1500.0ms denied req-1",
    ),
    "anonymous": (
        an_entry(identity=ANONYMOUS, method="GET", route="/"),
        "192.0.2.7 anonymous GET / 200 2000B 1500.0ms ok req-1",
    ),
}


@pytest.mark.parametrize(("entry", "expected"), TEXTS.values(), ids=TEXTS)
def test_as_text_a_request_is_one_line_to_read(entry: Entry, expected: str) -> None:
    time_of, _, rest = as_text(entry, EPOCH).partition(" ")
    assert datetime.fromisoformat(time_of).tzinfo == UTC
    assert rest == expected + "\n"


# Time


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000.0, "2027-01-15T08:00:00.000Z"),
        (1_800_000_000.25, "2027-01-15T08:00:00.250Z"),
        (1_800_000_000.9999, "2027-01-15T08:00:00.999Z"),
        (1_800_000_001.0, "2027-01-15T08:00:01.000Z"),
        (951_782_400.0, "2000-02-29T00:00:00.000Z"),
    ],
)
def test_times_are_rfc_3339_in_utc_with_milliseconds(now: float, expected: str) -> None:
    assert timestamp(now) == expected


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=5))
def test_a_time_is_right_whichever_was_told_before(times: list[float]) -> None:
    for now in times:
        told = datetime.fromisoformat(timestamp(now)).timestamp()
        assert told <= now < told + 0.00101


# Batches


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_lines_come_out_in_order_soon_and_without_being_asked_for(path: Path) -> None:
    ids = [b"req-%d" % number for number in range(100)]

    async def serve(log: AccessLog) -> str:
        for request_id in ids[:-1]:
            log.write(an_entry(request_id=request_id))
        at_once = path.read_text()
        await asyncio.sleep(2 * FLUSH_AFTER)
        log.write(an_entry(request_id=ids[-1]))
        await asyncio.sleep(2 * FLUSH_AFTER)
        return at_once

    assert written(path, "json", serve) == ""
    assert [json.loads(line)["request_id"].encode() for line in path.read_text().splitlines()] == ids


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_waits_is_written_when_it_is_flushed(path: Path, log_format: str) -> None:
    async def serve(log: AccessLog) -> str:
        log.write(an_entry())
        log.flush()
        log.flush()
        return ""

    written(path, log_format, serve)
    line = path.read_text()
    assert line.count("\n") == 1
    assert line.startswith("{") is (log_format == "json")


def written(path: Path, log_format: str, serve: Callable[[AccessLog], Awaitable[str]]) -> str:
    """Run ``serve`` with a log that goes to ``path``, close it, and return what ``serve`` does."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream = LogStream(fd)

    async def run() -> str:
        return await serve(AccessLog(stream, log_format))

    try:
        return asyncio.run(run())
    finally:
        stream.close()
        os.close(fd)
