"""Bad credentials are counted by address: who is held back, for how long, and what is remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.failures import MOST_ADDRESSES, WINDOW, Failures


def test_as_many_as_allowed_are_answered_as_what_they_are() -> None:
    failures = Failures(3)
    assert [failures.add("192.0.2.1", float(second)) for second in range(5)] == [0, 0, 0, 57, 56]


def test_after_the_minute_the_count_begins_anew() -> None:
    failures = Failures(1)
    assert failures.add("192.0.2.1", 0.0) == 0
    assert failures.add("192.0.2.1", WINDOW - 0.1) == 1
    assert failures.add("192.0.2.1", WINDOW) == 0
    assert failures.add("192.0.2.1", WINDOW) == 60


def test_addresses_are_counted_apart_and_those_of_one_ipv6_network_together() -> None:
    failures = Failures(1)
    assert failures.add("192.0.2.1", 0) == failures.add("192.0.2.2", 0) == 0
    assert failures.add("2001:db8:0:1::1", 0) == 0
    assert failures.add("2001:db8:0:1:ffff::2", 0) > 0
    assert failures.add("2001:db8:0:2::1", 0) == 0


def test_zero_holds_nobody_back() -> None:
    failures = Failures(0)
    assert not any(failures.add("192.0.2.1", 0) for _ in range(1000))


def test_a_flood_from_many_addresses_forgets_the_oldest_and_keeps_memory_flat() -> None:
    failures = Failures(1)
    for number in range(MOST_ADDRESSES + 10):
        failures.add(f"host-{number}", 0)
    assert len(failures._counts) == MOST_ADDRESSES
    assert failures.add("host-0", 1) == 0
    assert failures.add(f"host-{MOST_ADDRESSES}", 1) > 0


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["a", "b", "::1", "192.0.2.1"]), st.floats(0, 50)), max_size=40),
)
def test_nobody_is_held_back_by_the_failures_of_others(
    per_minute: int, events: list[tuple[str, float]]
) -> None:
    alone: dict[str, list[int]] = {}
    together = Failures(per_minute)
    for address, pause in events:
        alone.setdefault(address, []).append(together.add(address, pause))
    for address, waits in alone.items():
        single = Failures(per_minute)
        assert waits == [single.add(address, pause) for name, pause in events if name == address]
