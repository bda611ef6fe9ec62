"""What a finding does to the status, the exit code and the two ways of printing it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.doctor.findings import (
    Finding,
    Level,
    document,
    error,
    exit_code,
    in_words,
    note,
    ok,
    warning,
    worst,
)

FINDINGS = [ok("fine", "all well"), note("odd", "is odd"), warning("bad", "is bad", "mend it")]


@pytest.mark.parametrize(
    ("findings", "level", "code"),
    [
        ([], Level.OK, 0),
        (FINDINGS[:1], Level.OK, 0),
        (FINDINGS[:2], Level.NOTE, 0),
        (FINDINGS, Level.WARNING, 1),
        ([error("broken", "is broken", "replace it"), *FINDINGS], Level.ERROR, 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst(findings: list[Finding], level: Level, code: int) -> None:
    assert worst(findings) is level
    assert exit_code(level) == code
    assert document(findings)["status"] == level.name.lower()


def test_the_document_has_every_finding_in_order() -> None:
    assert document(FINDINGS)["findings"] == [
        {"level": "ok", "code": "fine", "seen": "all well", "mend": None},
        {"level": "note", "code": "odd", "seen": "is odd", "mend": None},
        {"level": "warning", "code": "bad", "seen": "is bad", "mend": "mend it"},
    ]


def test_what_to_do_stands_on_a_line_of_its_own() -> None:
    assert in_words(FINDINGS[0]) == "ok       fine: all well"
    assert in_words(FINDINGS[2]) == "warning  bad: is bad\n         mend: mend it"


@given(st.text(), st.text(min_size=1))
def test_no_text_from_outside_moves_the_cursor(seen: str, mend: str) -> None:
    lines = in_words(warning("code", seen, mend)).split("\n")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
