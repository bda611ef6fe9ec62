"""How much of bodies is held: in all, and of one caller."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.guard.whole_body import Budget


def test_one_caller_gets_half_and_the_others_the_rest() -> None:
    budget = Budget(100)
    assert budget.take("a", 50)
    assert not budget.take("a", 1)
    assert budget.take("b", 50)
    assert not budget.take("c", 1)
    budget.give_back("a", 30)
    assert budget.take("c", 30)
    assert not budget.take("c", 1)


def test_what_is_given_back_is_forgotten() -> None:
    budget = Budget(100)
    for number in range(1000):
        assert budget.take(number, 50)
        budget.give_back(number, 50)
    assert budget.used == 0
    assert not budget._by_holder


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), max_size=30))
def test_the_sum_is_never_exceeded_and_comes_back_whole(asked: list[tuple[str, int]]) -> None:
    budget = Budget(100)
    held = [(holder, size) for holder, size in asked if budget.take(holder, size)]
    assert budget.used == sum(size for _, size in held) <= 100
    for name in "abc":
        assert sum(size for holder, size in held if holder == name) <= 50
    for holder, size in held:
        budget.give_back(holder, size)
    assert budget.used == 0
