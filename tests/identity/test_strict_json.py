"""JSON that two readers could take in two ways is no JSON here."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.strict_json import MAX_DEPTH, parse

ENOUGH = 1000

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@given(json_values, st.booleans())
def test_what_python_reads_is_read_alike(value: object, ascii_only: bool) -> None:
    try:
        text = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # a name with half of a pair
        return
    if parse_or_none(text) is None:
        return  # the bounds; they have tests of their own
    assert parse(text, ENOUGH) == json.loads(text)


def parse_or_none(text: bytes) -> object:
    try:
        return parse(text, ENOUGH)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"{", b'{"a"}', b'{"a":1,}', b"{'a':1}", b"{a:1}", b"[1,]", b"01", b"+1", b".5", b"1.",
        b'"\n"', b'"\t"', b"1 2", b"{} {}", b"{}\0", b"tru", b'"\\x41"', b'"', b'{"a":"', b"//\n1", b"/**/1",
        b'{"a":1,"a":1}', b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'[{"b":{"a":1,"a":2}}]',
        b"NaN", b"Infinity", b"-Infinity", b"[NaN]", b"1e400", b"-1e400", b"1" * 33, b"0." + b"1" * 40,
        b'"\\ud800"', b'"\\uDFFF"', b'{"\\ud800":1}', b'["\\udc00\\ud800"]', b'"\\ud800x"',
        b"\xff", b'"\xed\xa0\x80"', b'"\xc0\xaf"', b"\xef\xbb\xbf{}", '"a"'.encode("utf-16"), b'"\x80"',
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b'{"a":' * 17 + b"1" + b"}" * 17,
        b"[" * 100_000, b'{"a":' * 100_000, b"[" * 17, b'["[[[[[[[[[[[[[[[[[[[[[[',
    ],
)  # fmt: skip
def test_what_has_no_reading_or_two_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one says nothing
        parse(text, 1_000_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b' {"a" : [ ] }\n', {"a": []}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        ('"\U0001f600 \u00e4"'.encode(), "\U0001f600 \u00e4"),
        (b'"[[[[[[[[[[[[[[[[[[[[{{{{{{\\"[\\\\"', '[[[[[[[[[[[[[[[[[[[[{{{{{{"[\\'),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
        (b"[" + b"[]," * 300 + b"1]", [[]] * 300 + [1]),
        (b"1.7e9", 1.7e9),
        (b"-0", 0),
    ],
)
def test_ordinary_json_is_read(text: bytes, value: object) -> None:
    assert parse(text, ENOUGH) == value


def test_there_is_an_end_to_the_values_that_are_read() -> None:
    assert len(parse(b"[" + b"1," * 990 + b"1]", ENOUGH)) == 991  # type: ignore[arg-type]
    for many in (b"1," * 1001, b"{}," * 600, b"[]," * 600, b'"a",' * 1001):
        with pytest.raises(ValueError, match="too many"):
            parse(b"[" + many + b"1]", ENOUGH)


@pytest.mark.parametrize(
    "text",
    [b'"' + b'\\"' * 500_000, b'"' * 999_999, b'["' + b"\\" * 1_000_000, b"[" * 17 + b'"\\"' * 300_000],
)
def test_a_megabyte_of_nonsense_takes_no_time(text: bytes) -> None:
    begun = time.perf_counter()
    assert parse_or_none(text) is None
    assert parse_or_none(b"[" * 10 + b"{" * 10 + text) is None
    assert time.perf_counter() - begun < 1
