"""What operators are told of a key that somebody says does not work."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.api_keys import ApiKey, Refusal, Secret, digest, generate, issue, reissue, verify
from proxy.identity.verdict import Verdict, judge
from proxy.store.verdict import in_words

NOW = 1_800_000_000.0
TEXT, KEY = issue("laptop", NOW)
OTHER = reissue(KEY.id)
MISTYPED = TEXT[:20] + ("a" if TEXT[20] != "a" else "b") + TEXT[21:]
OLD = replace(KEY, secrets=(Secret(digest(TEXT.encode()), NOW), Secret(digest(OTHER.encode()))))

CASES = [
    (TEXT, KEY, Verdict.GOOD, "good: this key is accepted"),
    (TEXT, replace(KEY, expires=NOW + 1), Verdict.GOOD, "good: this key is accepted"),
    (OTHER, OLD, Verdict.GOOD, "good: this key is accepted"),
    (MISTYPED, KEY, Verdict.MISTYPED, "mistyped: the checksum does not fit"),
    (MISTYPED, None, Verdict.MISTYPED, "mistyped: the checksum does not fit"),
    ("", None, Verdict.NO_KEY, "not a key: a key is oap_, and 64 characters in all"),
    ("sk-proj-1", None, Verdict.NO_KEY, "not a key: a key is oap_, and 64 characters in all"),
    (TEXT[:-1], KEY, Verdict.NO_KEY, "not a key: a key is oap_, and 64 characters in all; this has 63"),
    (TEXT, None, Verdict.UNKNOWN, f"unknown: no key in this store has the id {KEY.id}"),
    (OTHER, KEY, Verdict.WRONG_SECRET, f"wrong secret: there is a key {KEY.id}, but this is not its text"),
    (OTHER, replace(KEY, revoked=NOW), Verdict.WRONG_SECRET, "wrong secret"),
    (OTHER, replace(KEY, expires=NOW), Verdict.WRONG_SECRET, "wrong secret"),
    (TEXT, replace(KEY, kind="ssh"), Verdict.WRONG_SECRET, "wrong secret"),
    (TEXT, replace(KEY, secrets=()), Verdict.WRONG_SECRET, "wrong secret"),
    (TEXT, OLD, Verdict.REPLACED, "replaced: the key was rotated"),
    (TEXT, replace(KEY, revoked=NOW, expires=NOW), Verdict.REVOKED, "revoked: since 2027-01-15T08:00:00Z"),
    (TEXT, replace(OLD, revoked=NOW), Verdict.REVOKED, "revoked: since 2027-01-15T08:00:00Z"),
    (TEXT, replace(KEY, expires=NOW), Verdict.EXPIRED, "expired: since 2027-01-15T08:00:00Z; 'keys set"),
]


# The ids are the same for every worker, and the key is another one each time.
@pytest.mark.parametrize(("text", "key", "verdict", "sentence"), CASES, ids=count())
def test_every_verdict_has_its_sentence(
    text: str, key: ApiKey | None, verdict: Verdict, sentence: str
) -> None:
    assert judge(text, key, NOW) is verdict
    told = in_words(verdict, text, key)
    assert told.startswith(sentence)
    assert text[15:] not in told or text[15:] == ""


def test_every_verdict_is_in_the_table() -> None:
    assert {verdict for _, _, verdict, _ in CASES} == set(Verdict)


ends = st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1])


@given(
    st.sampled_from([TEXT, OTHER, MISTYPED, generate()]),
    st.lists(st.tuples(st.sampled_from([TEXT, OTHER]), ends), max_size=3),
    ends,
    st.none() | st.just(NOW - 1),
    st.sampled_from(["api_key", "ssh"]),
)
def test_good_is_what_the_proxy_accepts_and_nothing_else(text, secrets, expires, revoked, kind) -> None:
    stored = tuple(Secret(digest(secret.encode()), end) for secret, end in secrets)
    key = replace(KEY, secrets=stored, expires=expires, revoked=revoked, kind=kind)
    found = key if text[4:14] == key.id else None
    verdict = judge(text, found, NOW)
    answer = verify({key.id: key}, text.encode(), NOW)
    assert (verdict is Verdict.GOOD) == (not isinstance(answer, Refusal))
    assert (verdict is Verdict.EXPIRED) == (answer is Refusal.EXPIRED)
