from __future__ import annotations

import re
import timeit
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.api_keys import (
    ALPHABET,
    KEY_LENGTH,
    ApiKey,
    Refusal,
    digest,
    generate,
    issue,
    verify,
)

NOW = 1_800_000_000.0

# Worked out by hand from 64 bytes: the id is the first 32 modulo 62**10, the secret the last 32.
ZEROS = "oap_0000000000_" + "0" * 43
ONES = "oap_0000000001_" + "0" * 42 + "1"

random_bytes = st.binary(min_size=64, max_size=64)
key_texts = random_bytes.map(lambda source: generate(_reading(source)))
characters = st.sampled_from(ALPHABET)


def _reading(source: bytes):
    rest = bytearray(source)

    def take(count: int) -> bytes:
        taken = bytes(rest[:count])
        del rest[:count]
        return taken

    return take


def _crc32_in_base62(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for power in range(5, -1, -1):
        digits += "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[number // 62**power % 62]
    return digits


def _stored(name: str = "laptop", **changes: object) -> tuple[bytes, dict[str, ApiKey]]:
    text, key = issue(name, NOW)
    return text.encode(), {key.id: replace(key, **changes)}


@pytest.mark.parametrize(
    ("source", "body"),
    [(bytes(64), ZEROS), (bytes(31) + b"\1" + bytes(31) + b"\1", ONES)],
)
def test_a_key_is_written_as_the_interface_says(source, body):
    assert generate(_reading(source)) == body + _crc32_in_base62(body)


def test_the_largest_secret_fits_into_43_digits():
    secret = generate(_reading(b"\xff" * 64))[15:58]
    number = 0
    for digit in secret:
        number = number * 62 + ALPHABET.index(digit)
    assert number == 2**256 - 1


def test_keys_are_made_from_the_random_source_of_the_system():
    assert len({generate() for _ in range(100)}) == 100


@given(key_texts)
def test_every_key_made_has_its_shape_and_its_checksum(text):
    assert len(text) == KEY_LENGTH == 64
    assert re.fullmatch(r"oap_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}", text)
    assert text[-6:] == _crc32_in_base62(text[:-6])


@given(key_texts, st.integers(0, 63), st.characters())
def test_a_key_with_one_character_changed_is_refused(text, place, character):
    changed = text[:place] + character + text[place + 1 :]
    keys = {text[4:14]: _record(text)}
    presented = changed.encode("utf-8", "surrogatepass")
    assert (verify(keys, presented, NOW) is Refusal.INVALID) == (changed != text)


def _record(text: str) -> ApiKey:
    return ApiKey(text[4:14], "laptop", (digest(text.encode()),), frozenset({"read"}), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oap_",
        ZEROS,
        generate()[:-1],
        generate() + "0",
        generate() + "\n",
        " " + generate()[1:],
        "OAP_" + generate()[4:],
        generate().replace("_", "-"),
        generate()[:20] + "é" + generate()[21:],
        generate()[:20] + "٣" + generate()[21:],  # a digit, but not one of ours
        "oap_" * 16,
        "x" * 1_000_000,
    ],
)
def test_a_text_of_another_shape_is_refused(text):
    _, keys = _stored()
    assert verify(keys, text.encode(), NOW) is Refusal.INVALID


@given(st.one_of(st.binary(), st.binary(min_size=64, max_size=64)))
def test_garbage_is_refused_as_invalid(presented):
    _, keys = _stored()
    assert verify(keys, presented, NOW) is Refusal.INVALID


@given(key_texts, st.binary(min_size=1, max_size=64))
def test_a_key_with_something_before_or_after_it_is_refused(text, more):
    keys = {text[4:14]: _record(text)}
    assert verify(keys, text.encode() + more, NOW) is Refusal.INVALID
    assert verify(keys, more + text.encode(), NOW) is Refusal.INVALID


def test_a_stored_key_is_accepted():
    presented, keys = _stored()
    (key,) = keys.values()
    assert verify(keys, presented, NOW) is key


def test_the_right_id_with_another_secret_is_refused():
    presented, keys = _stored()
    other = generate()
    assert verify(keys, presented[:15] + other[15:].encode(), NOW) is Refusal.INVALID


def test_an_unknown_key_is_refused():
    presented, _ = _stored()
    assert verify({}, presented, NOW) is Refusal.INVALID


def test_every_secret_of_a_key_is_accepted():
    presented, keys = _stored()
    (key,) = keys.values()
    for digests in [(digest(b"old"), digest(presented)), (digest(presented), digest(b"new"))]:
        assert verify({key.id: replace(key, digests=digests)}, presented, NOW) == replace(
            key, digests=digests
        )


def test_a_key_without_a_secret_accepts_nothing():
    presented, keys = _stored(digests=())
    assert verify(keys, presented, NOW) is Refusal.INVALID


@pytest.mark.parametrize(
    ("expires", "now", "refused"),
    [
        (NOW, NOW - 1, None),
        (NOW, NOW - 0.001, None),
        (NOW, NOW, Refusal.EXPIRED),
        (NOW, NOW + 1, Refusal.EXPIRED),
        (None, NOW + 1e9, None),
    ],
)
def test_an_expired_key_is_refused_as_expired_from_its_very_second_on(expires, now, refused):
    presented, keys = _stored(expires=expires)
    (key,) = keys.values()
    assert verify(keys, presented, now) == (refused or key)


def test_only_the_right_secret_learns_that_a_key_has_expired():
    presented, keys = _stored(expires=NOW - 1)
    wrong = presented[:-1] + (b"0" if presented[-1:] != b"0" else b"1")
    assert verify(keys, wrong, NOW) is Refusal.INVALID


@pytest.mark.parametrize("expires", [None, NOW - 1])
def test_a_revoked_key_looks_like_an_unknown_one(expires):
    presented, keys = _stored(revoked=NOW - 10, expires=expires)
    assert verify(keys, presented, NOW) is Refusal.INVALID


def test_a_new_key_may_read_and_infer_and_nothing_else():
    text, key = issue("laptop", NOW)
    assert key == ApiKey(
        id=text[4:14],
        name="laptop",
        kind="api_key",
        digests=(digest(text.encode()),),
        scopes=frozenset({"read", "inference"}),
        models=None,
        cloud=False,
        limits={},
        created=NOW,
        expires=None,
        last_used=None,
        revoked=None,
    )


def test_a_record_shows_nothing_that_helps_to_guess_the_key():
    text, key = issue("laptop", NOW)
    assert text[15:] not in repr(key)
    assert repr(digest(text.encode()))[2:-1] not in repr(key)


@pytest.mark.parametrize(
    "name", ["a", "7", "laptop", "ci-runner_2", "jo@example.org", "Jo's"[:2], "a b", "x" * 64]
)
def test_a_plain_name_is_accepted(name):
    assert issue(name, NOW)[1].name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "-a",
        ".a",
        "a\n",
        "a\tb",
        "a\x1b[2J",
        "a\x00",
        "jürgen",
        "a\u202eb",
        "a/b",
        '"',
        "x" * 65,
    ],
)
def test_a_name_that_could_mislead_a_log_reader_is_refused(name):
    with pytest.raises(ValueError, match="1 to 64 letters, digits"):
        issue(name, NOW)


def test_checking_a_key_costs_less_than_5_microseconds():
    presented, keys = _stored()
    for shown in (presented, generate().encode()):
        best = min(timeit.repeat(lambda shown=shown: verify(keys, shown, NOW), number=2000, repeat=10))
        assert best / 2000 < 5e-6
