"""Only models that Ollama lists have names of their own in metrics and log, and not without end."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.observe.models import MOST_NAMES, UNLISTED, Models

PLAIN = re.compile(r"[!#-\[\]-~]+")
"""What stands in a label or in JSON without an escape."""


def listed(*names: str) -> Models:
    models = Models()
    models.replace(names)
    return models


@pytest.mark.parametrize(
    "spelling",
    [
        *("llama3.2", "llama3.2:latest", "LLAMA3.2:Latest", "library/llama3.2", " llama3.2 "),
        *("registry.ollama.ai/library/llama3.2:latest", "https://registry.ollama.ai/library/llama3.2"),
        "llama3.2:local",
    ],
)
def test_every_spelling_of_a_model_has_one_label(spelling: str) -> None:
    assert listed("llama3.2:latest").label(spelling) == "llama3.2:latest"
    assert listed(spelling).label("llama3.2") == "llama3.2:latest", "Ollama may spell it in any way too"


@pytest.mark.parametrize(
    "name",
    ["llama3.2:1b", "llama3.2:cloud", "llama3", "", " ", None, "x" * 511, "x" * 100_000, "\0", "\ud800"],
)
def test_what_ollama_does_not_list_has_no_label_of_its_own(name: str | None) -> None:
    assert listed("llama3.2").label(name) == UNLISTED


def test_before_ollama_was_asked_no_model_has_a_name() -> None:
    assert Models().label("llama3.2") == UNLISTED


def test_a_model_that_is_gone_is_not_told_any_more_and_one_that_came_is() -> None:
    models = listed("a", "b")
    models.replace(["b", "c"])
    assert [models.label(name) for name in "abc"] == [UNLISTED, "b:latest", "c:latest"]
    models.replace([])
    assert models.label("b") == UNLISTED


def test_there_are_never_more_names_than_so_many_however_models_come_and_go() -> None:
    models, seen = Models(), set[str]()
    for number in range(50):
        names = [f"m{number}-{model}" for model in range(50)]
        models.replace(names)
        seen |= {models.label(name) for name in names}
    assert len(seen - {UNLISTED}) == MOST_NAMES


def test_those_that_have_a_name_keep_it_when_there_is_room_for_no_more() -> None:
    models = listed(*(f"m{number}" for number in range(MOST_NAMES)))
    models.replace(["m7", "too-late", "m8"])
    assert [models.label(name) for name in ("m7", "too-late", "m8")] == ["m7:latest", UNLISTED, "m8:latest"]


def test_more_models_than_there_is_room_for_are_as_many_as_there_is_room_for() -> None:
    models = listed(*(f"m{number:05}" for number in range(3 * MOST_NAMES)))
    assert len(models.names) == MOST_NAMES


def test_names_that_cannot_be_those_of_models_are_passed_over() -> None:
    models = listed("good", "", "a b", 'quote"d', "back\\slash", "line\nend", "ümlaut", "x" * 5000, "a:b:c")
    assert models.names == {"good:latest"}


def test_a_label_costs_next_to_nothing() -> None:
    models = listed(*(f"m{number}" for number in range(MOST_NAMES)))
    started = time.perf_counter()
    for _ in range(20):
        for number in range(100):
            models.label(f"m{number}")
    assert time.perf_counter() - started < 0.1, "50 µs each on a slow machine"


@given(st.lists(st.text(max_size=40), max_size=10), st.text(max_size=60))
def test_whatever_is_listed_and_asked_for_the_label_is_plain(names: list[str], asked: str) -> None:
    models = listed(*names, "good")
    for name in (asked, *names):
        label = models.label(name)
        assert PLAIN.fullmatch(label)
        assert label == UNLISTED or label in models.names
