"""What was used is handed on whole: nothing is lost, nothing is in two batches, and it stays bounded."""

from __future__ import annotations

import timeit
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proxy.observe.ledger import Batch, Ledger, Row

NOW = 1_800_000_000.5
HOUR = 1_800_000_000


def added(ledger: Ledger, key: str = "id", tokens: int | None = 1, now: float = NOW, **labels: str) -> None:
    model, route = labels.get("model", "m:latest"), labels.get("route", "/api/chat")
    ledger.add(now, key, f"name of {key}", model, route, tokens, tokens, 0.5)


def next_batch(ledger: Ledger) -> Batch:
    batch = ledger.batch()
    assert batch is not None
    ledger.written(batch)
    return batch


def test_requests_of_one_hour_key_model_and_route_are_one_row():
    ledger = Ledger()
    ledger.add(NOW, "id", "laptop", "m:latest", "/api/chat", 10, 20, 0.25)
    ledger.add(NOW + 3599, "id", "laptop", "m:latest", "/api/chat", 1, 2, 0.5)
    assert next_batch(ledger).rows == (Row(HOUR, "id", "laptop", "m:latest", "/api/chat", 2, 11, 22, 0.75),)


def test_hour_key_model_and_route_are_told_apart():
    ledger = Ledger()
    usual = (NOW, "id", "laptop", "m:latest", "/api/chat")
    for position, other in enumerate((NOW + 3600, "other", "desk", None, "/api/generate")):
        ledger.add(*usual[:position], other, *usual[position + 1 :], 1, 1, 1.0)
    rows = next_batch(ledger).rows
    assert [row.requests for row in rows] == [1] * 5
    assert [row.hour for row in rows] == [HOUR + 3600, *[HOUR] * 4]


def test_tokens_that_nobody_told_count_as_none_used():
    ledger = Ledger()
    added(ledger, tokens=None)
    added(ledger, tokens=5)
    assert next_batch(ledger).rows[0][5:] == (2, 5, 5, 1.0)


def test_callers_without_a_key_are_one_for_each_way_of_coming_in():
    ledger = Ledger()
    for who in ("jwt", "anonymous", "jwt"):
        ledger.add(NOW, None, who, None, "/api/tags", None, None, 0.5)
    assert [(row.key_id, row.key_name, row.model, row.requests) for row in next_batch(ledger).rows] == [
        (None, "jwt", None, 2),
        (None, "anonymous", None, 1),
    ]


def test_where_nothing_was_used_there_is_nothing_to_write():
    assert Ledger().batch() is None


def test_a_batch_stays_as_it_is_until_it_is_written_and_what_comes_meanwhile_is_the_next_one():
    ledger = Ledger()
    added(ledger, tokens=1)
    first = ledger.batch()
    added(ledger, tokens=2)
    assert ledger.batch() is first
    ledger.written(first)
    second = next_batch(ledger)
    assert [row.input_tokens for row in second.rows] == [2]
    assert ledger.batch() is None
    assert (first.writer, first.number, second.number) == (second.writer, 1, 2)


def test_word_of_an_older_batch_does_not_lose_the_one_that_waits():
    ledger = Ledger()
    added(ledger)
    first = next_batch(ledger)
    added(ledger)
    second = ledger.batch()
    ledger.written(first)
    assert ledger.batch() is second


def test_no_two_processes_are_taken_for_one_writer():
    writers = set()
    for _ in range(10):
        ledger = Ledger()
        added(ledger)
        writers.add(next_batch(ledger).writer)
    assert len(writers) == 10


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 9), st.integers(0, 2)),
            st.sampled_from(["ask", "write"]),
        )
    ),
    st.integers(1, 6),
)
def test_every_token_of_every_key_is_in_one_batch_whatever_is_asked_when(steps, most_rows):
    ledger = Ledger(most_rows)
    expected, written = Counter(), Counter()
    requests = 0

    def write() -> None:
        batch = ledger.batch()
        if batch is not None:
            assert len(batch.rows) <= most_rows + 3  # one a key beyond
            for row in batch.rows:
                written[row.key_id] += row.input_tokens
                written["requests"] += row.requests
            ledger.written(batch)

    for step in steps:
        if step == "ask":
            ledger.batch()
        elif step == "write":
            write()
        else:
            key, model, tokens, hour = step
            added(ledger, key, tokens, NOW + 3600 * hour, model=model)
            expected[key] += tokens
            requests += 1
    write()
    write()
    assert ledger.batch() is None
    assert written == expected + Counter(requests=requests)


def test_beyond_its_bound_a_batch_has_one_row_more_for_each_key_and_totals_of_keys_stay_right():
    ledger = Ledger(most_rows=100)
    for number in range(1000):
        for key in ("a", "b"):
            added(ledger, key, now=NOW + 3600 * number, model=f"m{number}")
    rows = next_batch(ledger).rows
    assert len(rows) == 102
    assert Counter({"a": 1000, "b": 1000}) == sum(
        (Counter({row.key_id: row.output_tokens}) for row in rows), Counter()
    )
    beyond = [row for row in rows if row.model == "other"]
    assert [(row.route, row.requests, row.hour) for row in beyond] == [("other", 950, HOUR + 50 * 3600)] * 2
    added(ledger, model="m1")
    assert [row.model for row in next_batch(ledger).rows] == ["m1"]


def test_counting_a_request_costs_no_more_than_some_microseconds():
    ledger = Ledger()
    cost = min(timeit.repeat(lambda: added(ledger), number=5000, repeat=5)) / 5000
    assert cost < 10e-6  # 0.7 us where nothing else runs
