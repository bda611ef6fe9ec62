"""A flood of like events is told by its first ones and a sum, and no event is counted twice or never."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proxy.observe.sampling import MOST_KINDS, SUMS_TOLD, TOLD, TOLD_OF_ALL, WINDOW, Sampling, Untold

BAD = "invalid_credentials"


def wants(
    sampling: Sampling, count: int, reason: str = BAD, address: str = "192.0.2.1", now: float = 0.0
) -> int:
    """How many of so many events are to be told."""
    return sum(sampling.wants(reason, address, now) for _ in range(count))


def test_a_few_events_are_all_told_and_need_no_sum() -> None:
    sampling = Sampling()
    assert wants(sampling, TOLD) == TOLD
    assert sampling.take(WINDOW) == []


def test_of_a_flood_the_first_are_told_and_the_rest_is_one_sum() -> None:
    sampling = Sampling()
    assert wants(sampling, 5000) == TOLD
    assert sampling.take(WINDOW) == [Untold(BAD, "192.0.2.1", 5000 - TOLD)]


def test_kinds_are_reasons_and_addresses_and_each_is_told() -> None:
    sampling = Sampling()
    told = [
        wants(sampling, 10, reason, address)
        for reason in (BAD, "expired_credentials")
        for address in ("192.0.2.1", "2001:db8::1")
    ]
    assert told == [TOLD] * 4
    assert {(one.reason, one.address, one.times) for one in sampling.take(WINDOW)} == {
        (reason, address, 10 - TOLD)
        for reason in (BAD, "expired_credentials")
        for address in ("192.0.2.1", "2001:db8::1")
    }


def test_the_sum_comes_after_a_minute_and_not_sooner() -> None:
    sampling = Sampling()
    wants(sampling, 10, now=1000.0)
    assert sampling.take(1000.0 + WINDOW - 0.001) == []
    assert sampling.take(1000.0 + WINDOW) == [Untold(BAD, "192.0.2.1", 10 - TOLD)]
    assert sampling.take(1000.0 + 2 * WINDOW) == [], "nothing has come since"


def test_at_the_end_nothing_is_waited_for() -> None:
    sampling = Sampling()
    wants(sampling, 10)
    assert sampling.take(float("inf")) == [Untold(BAD, "192.0.2.1", 10 - TOLD)]


def test_a_new_minute_begins_with_the_next_event() -> None:
    sampling = Sampling()
    wants(sampling, 10)
    sampling.take(WINDOW)
    assert wants(sampling, 10, now=500.0) == TOLD
    assert sampling.take(500.0 + WINDOW - 1) == []
    assert sampling.take(500.0 + WINDOW) == [Untold(BAD, "192.0.2.1", 10 - TOLD)]


def test_where_nothing_happens_there_is_nothing_to_tell() -> None:
    assert Sampling().take(0.0) == []
    assert Sampling().take(1e9) == []


def test_many_addresses_do_not_fill_the_log() -> None:
    sampling = Sampling()
    count = 3 * MOST_KINDS
    told = sum(wants(sampling, 1, address=f"address {number}") for number in range(count))
    assert told == TOLD_OF_ALL
    sums = sampling.take(WINDOW)
    assert len(sums) <= SUMS_TOLD + 1
    assert told + sum(one.times for one in sums) == count
    assert sums[-1].address == ""


def test_the_worst_addresses_are_named() -> None:
    sampling = Sampling()
    for number in range(1000):
        wants(sampling, TOLD + 1 + number % 300, address=f"address {number}")
    sums = sampling.take(WINDOW)
    named = [one.times for one in sums if one.address]
    assert len(named) == SUMS_TOLD
    assert named == sorted(named, reverse=True)
    assert min(named) > 200


def test_beyond_what_is_remembered_reasons_are_kept_apart() -> None:
    sampling = Sampling()
    for number in range(MOST_KINDS):
        wants(sampling, 1, address=f"address {number}")
    wants(sampling, 7, "one", "somebody")
    wants(sampling, 9, "other", "somebody else")
    rest = {one.reason: one.times for one in sampling.take(WINDOW) if not one.address}
    assert (rest["one"], rest["other"]) == (7, 9)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]), st.integers(0, 4000), st.integers(1, 30), st.floats(0, 100)
        ),
        max_size=60,
    )
)
def test_whatever_comes_each_event_is_told_or_counted_once(
    events: list[tuple[str, int, int, float]],
) -> None:
    sampling, now = Sampling(), 0.0
    came, told, summed = Counter[str](), Counter[str](), Counter[str]()
    for reason, address, count, later in events:
        now += later
        before = sum(told.values())
        took = sampling.take(now)
        assert len(took) <= SUMS_TOLD + 3
        assert all(one.times > 0 for one in took)
        for one in took:
            summed[one.reason] += one.times
        told[reason] += wants(sampling, count, reason, f"address {address}", now)
        came[reason] += count
        assert sum(told.values()) - before <= TOLD
    for one in sampling.take(float("inf")):
        summed[one.reason] += one.times
    assert told + summed == came
