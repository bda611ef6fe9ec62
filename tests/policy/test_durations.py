"""How long a keep_alive is, in our reading and in Go's."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.policy.durations import keep_alive_seconds

from .reader import OllamaReader

FOR_EVER = math.inf

# A value of JSON | seconds; None is refused.
TABLE = {
    "0": 0,
    "300": 300,
    "0.5": 0.5,
    "-0": 0,
    "-0.0": 0,
    "1e-400": 0,
    "-1": FOR_EVER,
    "-0.001": FOR_EVER,
    "-1e300": FOR_EVER,
    "9223372036": 9223372036,
    '"0"': 0,
    '"-0"': 0,
    '"+0"': 0,
    '"0s"': 0,
    '"-0s"': 0,
    '"5m"': 300,
    '"+5m"': 300,
    '"1h30m"': 5400,
    '"1m1m"': 120,
    '"1.5h"': 5400,
    '"1.s"': 1,
    '".5s"': 0.5,
    '"90000ms"': 90,
    '"1us"': 1e-6,
    '"1\\u00b5s"': 1e-6,
    '"1\\u03bcs"': 1e-6,
    '"60000000000ns"': 60,
    '"0.1ns"': 0,
    '"59.9999999999s"': 59.999999999,
    '"-1ns"': FOR_EVER,
    '"-5m"': FOR_EVER,
    '"2562047h47m16.854775807s"': 9223372036.854775807,
    # What Ollama makes of the first three depends on the processor.
    "9223372037": None,
    "1e300": None,
    "1" + "0" * 400: None,
    '"2562047h47m16.854775808s"': None,
    '"9999999999h"': None,
    '"-0.9ns"': None,
    '"-0.9999999999999999999ns"': None,
    '""': None,
    '"-1"': None,
    '"5"': None,
    '"5 m"': None,
    '" 5m"': None,
    '"5m "': None,
    '"5M"': None,
    '"1d"': None,
    '"5min"': None,
    '"1e3s"': None,
    '"--5m"': None,
    '"5m-1s"': None,
    '"."': None,
    '".s"': None,
    '"s"': None,
    '"5m\\n"': None,
    '"\\u0665m"': None,
    '"infinity"': None,
    "true": None,
    "false": None,
    "[]": None,
    "{}": None,
    "null": None,
}


@pytest.mark.parametrize("text", TABLE)
def test_a_keep_alive_lasts_this_long(text: str) -> None:
    assert keep_alive_seconds(json.loads(text)) == TABLE[text]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_has_no_number_for_is_refused(value: float) -> None:
    assert keep_alive_seconds(value) is None


def test_go_reads_the_table_alike(ollama_reader: OllamaReader) -> None:
    for text, nanoseconds in zip(TABLE, ollama_reader.keep_alive(list(TABLE)), strict=True):
        alike(TABLE[text], nanoseconds)


def alike(ours: float | None, nanoseconds: int | None) -> None:
    """What we let count is what Go counts: to a few nanoseconds, which it rounds otherwise."""
    if ours is None:
        return
    assert nanoseconds is not None
    if math.isinf(ours):
        assert nanoseconds == 2**63 - 1
    else:
        assert nanoseconds / 1e9 == pytest.approx(ours, rel=1e-15, abs=1e-8)


digits = st.text("0123456789", max_size=12)
numbers = st.one_of(digits, st.builds("{}.{}".format, digits, digits))
units = st.sampled_from(["ns", "us", "\u00b5s", "\u03bcs", "ms", "s", "m", "h", "", "d", "S"])
durations = st.builds(
    "{}{}".format,
    st.sampled_from(["", "", "-", "+"]),
    st.lists(st.builds("{}{}".format, numbers, units), max_size=4).map("".join),
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(durations, st.floats(allow_nan=False, allow_infinity=False), st.integers()))
@example("-0.9999999999999999999ns")
@example(9223372036.854775)
@example(2**63)
def test_go_reads_every_duration_alike(ollama_reader: OllamaReader, value: object) -> None:
    text = json.dumps(value)
    (nanoseconds,) = ollama_reader.keep_alive([text])
    alike(keep_alive_seconds(json.loads(text)), nanoseconds)


@settings(max_examples=500, deadline=None)
@given(durations)
def test_what_go_reads_is_refused_only_where_it_is_near_nothing(
    ollama_reader: OllamaReader, text: str
) -> None:
    (nanoseconds,) = ollama_reader.keep_alive([json.dumps(text)])
    if nanoseconds is not None and keep_alive_seconds(text) is None:
        assert text.startswith("-")
        assert nanoseconds in (0, 2**63 - 1)
