from __future__ import annotations

import re
import timeit
import zlib
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.api_keys import (
    ALPHABET,
    KEY_LENGTH,
    ApiKey,
    Form,
    Refusal,
    Secret,
    classify,
    digest,
    generate,
    granted,
    id_of,
    is_model_pattern,
    issue,
    issue_ssh,
    reissue,
    verify,
)
from proxy.identity.limits import NAMES

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
    return ApiKey(text[4:14], "laptop", (Secret(digest(text.encode())),), frozenset({"read"}), NOW)


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
    ids=count(),  # the same for every worker, and a key is another one each time
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
    this, old, new = (Secret(digest(text)) for text in (presented, b"old", b"new"))
    for secrets in [(old, this), (this, new), (old, this, new)]:
        changed = replace(key, secrets=secrets)
        assert verify({key.id: changed}, presented, NOW) is changed


def test_a_key_without_a_secret_accepts_nothing():
    presented, keys = _stored(secrets=())
    assert verify(keys, presented, NOW) is Refusal.INVALID


@pytest.mark.parametrize(
    ("ends", "good"),
    [(None, True), (NOW + 1, True), (NOW + 0.001, True), (NOW, False), (NOW - 1, False), (0, False)],
)
def test_a_secret_proves_nothing_from_the_second_of_its_end_on(ends, good):
    presented, keys = _stored()
    (key,) = keys.values()
    for others in [(), (Secret(digest(b"new")),), (Secret(digest(b"new"), NOW + 9), Secret(digest(b"x"), 1))]:
        changed = replace(key, secrets=(*others, Secret(digest(presented), ends)))
        assert verify({key.id: changed}, presented, NOW) is (changed if good else Refusal.INVALID)


@given(st.lists(st.tuples(st.booleans(), st.none() | st.integers(-2, 2)), max_size=6))
def test_one_secret_that_matches_and_holds_is_enough_and_nothing_less_is(secrets):
    presented, keys = _stored()
    (key,) = keys.values()
    stored = tuple(
        Secret(digest(presented if matches else b"another"), None if end is None else NOW + end)
        for matches, end in secrets
    )
    good = any(matches and (end is None or end > 0) for matches, end in secrets)
    found = verify({key.id: replace(key, secrets=stored)}, presented, NOW)
    assert (found is not Refusal.INVALID) == good


def test_every_secret_is_compared_whether_it_holds_or_not(monkeypatch):
    presented, keys = _stored()
    (key,) = keys.values()
    compared = []
    monkeypatch.setattr(
        "proxy.identity.api_keys.hmac.compare_digest", lambda a, b: compared.append(a) or a == b
    )
    this, ended, other = Secret(digest(presented)), Secret(digest(b"old"), 1), Secret(digest(b"new"))
    verify({key.id: replace(key, secrets=(this, ended, other))}, presented, NOW)
    assert compared == [this.digest, ended.digest, other.digest]


def test_the_public_key_of_another_kind_is_never_accepted_as_a_text():
    presented, keys = _stored(kind="ssh")
    assert verify(keys, presented, NOW) is Refusal.INVALID
    blob = generate().encode()  # even if a public key were one
    key = replace(issue_ssh("desk", blob, NOW), id=blob[4:14].decode())
    assert verify({key.id: key}, blob, NOW) is Refusal.INVALID


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
        secrets=(Secret(digest(text.encode()), None),),
        scopes=frozenset({"read", "inference"}),
        models=None,
        cloud=False,
        limits={},
        created=NOW,
        expires=None,
        last_used=None,
        revoked=None,
    )


GRANTS = {
    "scopes": ["read", "manage"],
    "models": ["llama3.2", "hf.co/acme/*"],
    "cloud": True,
    "limits": {"max_context": 4096, "min_keep_alive": 60},
    "expires": NOW + 60,
}


def test_a_new_key_may_do_what_was_granted():
    blob = b"a public key"
    for key in (issue("laptop", NOW, **GRANTS)[1], issue_ssh("laptop", blob, NOW, **GRANTS)):
        assert (key.scopes, key.models) == (frozenset({"read", "manage"}), ("llama3.2", "hf.co/acme/*"))
        assert (key.cloud, key.limits) == (True, {"max_context": 4096, "min_keep_alive": 60})
        assert (key.created, key.expires) == (NOW, NOW + 60)


def test_a_key_that_signs_is_stored_by_the_hash_of_its_public_key():
    key = issue_ssh("desk", b"a public key", NOW)
    assert key == ApiKey(
        id=key.id,
        name="desk",
        kind="ssh",
        secrets=(Secret(digest(b"a public key"), None),),
        scopes=frozenset({"read", "inference"}),
        created=NOW,
    )
    assert re.fullmatch(r"[0-9A-Za-z]{10}", key.id)
    assert len({issue_ssh("desk", b"a public key", NOW).id for _ in range(100)}) == 100


def test_a_key_that_was_used_is_still_the_same_key():
    _, key = issue("laptop", NOW)
    assert replace(key, last_used=NOW) == key
    for changed in (
        {"name": "desk"},
        {"revoked": NOW},
        {"cloud": True},
        {"secrets": ()},
        {"limits": {"a": 1}},
    ):
        assert replace(key, **changed) != key


def test_rights_that_are_not_named_stay():
    _, key = issue("laptop", NOW, **GRANTS)
    assert granted(key) == key
    assert granted(key, expires=None) == replace(key, expires=None)
    assert granted(key, cloud=False) == replace(key, cloud=False)
    assert granted(key, models=None) == replace(key, models=None)
    assert granted(key, models=()) == replace(key, models=())
    assert granted(key, scopes=()) == replace(key, scopes=frozenset())
    assert granted(key, limits={}) == key


def test_of_the_limits_only_those_named_change_and_0_removes_one():
    _, key = issue("laptop", NOW, limits={"max_context": 4096, "min_keep_alive": 60})
    assert granted(key, limits={"max_context": 8192}).limits == {"max_context": 8192, "min_keep_alive": 60}
    assert granted(key, limits={"max_keep_alive": 60}).limits == {**key.limits, "max_keep_alive": 60}
    assert granted(key, limits={"max_context": 0}).limits == {"min_keep_alive": 60}
    assert granted(key, limits=dict.fromkeys(NAMES, 0)).limits == {}
    assert issue("laptop", NOW, limits={"max_context": 0})[1].limits == {}


@pytest.mark.parametrize(
    ("grants", "told"),
    [
        ({"models": [""]}, "a pattern for models must be 1 to 300 printable ASCII characters without blanks"),
        ({"models": ["llama3.2", "a b"]}, "a pattern for models must be"),
        ({"limits": {"max_contexts": 1}}, "not an object of max_context"),
        ({"limits": {"max_context": -1}}, "with whole numbers from 1"),
        ({"limits": {"max_context": 2**53 + 1}}, "with whole numbers from 1"),
        ({"limits": {"max_context": 4096.5}}, "with whole numbers from 1"),
        ({"limits": {"max_context": True}}, "with whole numbers from 1"),
        (
            {"limits": {"min_keep_alive": 61, "max_keep_alive": 60}},
            "the shortest keep_alive allowed would be",
        ),
    ],
)
def test_rights_that_make_no_sense_are_refused(grants, told):
    with pytest.raises(ValueError, match=told):
        issue("laptop", NOW, **grants)


def test_a_limit_that_contradicts_one_there_is_refused():
    _, key = issue("laptop", NOW, limits={"max_keep_alive": 60})
    with pytest.raises(ValueError, match="the shortest keep_alive allowed would be longer than the longest"):
        granted(key, limits={"min_keep_alive": 61})
    assert granted(key, limits={"min_keep_alive": 60}).limits == {"max_keep_alive": 60, "min_keep_alive": 60}


@pytest.mark.parametrize("text", ["*", "llama3.2", "llama3.2:*", "hf.co/acme/*", "[!a]?", "x" * 300])
def test_what_can_be_a_pattern_for_models(text):
    assert is_model_pattern(text)


@pytest.mark.parametrize(
    "text", ["", " ", "a b", " a", "a ", "a\n", "a\tb", "a\x00", "a\x7f", "jürgen", "a\u00a0b", "x" * 301]
)
def test_what_cannot_be_a_pattern_for_models(text):
    assert not is_model_pattern(text)


@given(key_texts, st.binary(min_size=32, max_size=32))
def test_a_key_made_anew_has_the_same_id_and_another_secret(text, source):
    again = reissue(text[4:14], _reading(source))
    assert again[:15] == text[:15]
    assert again[15:58] == _number_in_base62(int.from_bytes(source))
    assert again[58:] == _crc32_in_base62(again[:58])
    assert classify(again) is Form.KEY


def _number_in_base62(number):
    digits = ""
    for power in range(42, -1, -1):
        digits += ALPHABET[number // 62**power % 62]
    return digits


def test_keys_are_made_anew_from_the_random_source_of_the_system():
    assert len({reissue("0000000000") for _ in range(100)}) == 100


@given(key_texts)
def test_a_key_is_told_by_its_form_and_checksum(text):
    assert classify(text) is Form.KEY
    assert id_of(text) == text[4:14]


@given(key_texts, st.integers(4, 63), characters)
def test_one_wrong_character_makes_a_key_a_mistyped_one(text, place, character):
    changed = text[:place] + character + text[place + 1 :]
    right = {True: Form.KEY, False: Form.OTHER if place == 14 else Form.MISTYPED}
    assert classify(changed) is right[changed == text]


@given(key_texts, st.integers(4, 62))
def test_two_characters_that_changed_places_make_a_key_a_mistyped_one(text, place):
    swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    if swapped == text:
        assert classify(swapped) is Form.KEY
    else:
        assert classify(swapped) is (Form.OTHER if place in (13, 14) else Form.MISTYPED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oap_",
        generate()[:-1],
        generate() + "0",
        generate() + "\n",
        " " + generate(),
        generate().upper(),
        generate().replace("_", "-"),
        generate()[:20] + "٣" + generate()[21:],
        generate()[:20] + "\udcff" + generate()[21:],
        "sk-proj-0123456789",
        "x" * 1_000_000,
    ],
    ids=count(),
)
def test_another_text_is_no_key_at_all(text):
    assert classify(text) is Form.OTHER


@given(st.text())
def test_any_text_can_be_asked_about(text):
    assert classify(text) is Form.OTHER


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
    with pytest.raises(ValueError, match="1 to 64 letters, digits"):
        issue_ssh(name, b"a public key", NOW)


def test_checking_a_key_costs_less_than_5_microseconds():
    presented, keys = _stored()
    for shown in (presented, generate().encode()):
        best = min(timeit.repeat(lambda shown=shown: verify(keys, shown, NOW), number=2000, repeat=10))
        assert best / 2000 < 5e-6
