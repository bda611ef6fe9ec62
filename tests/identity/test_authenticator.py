"""From header fields to a caller: who is let in as whom, and what everybody else is told."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.identity.api_keys import ApiKey, Secret, digest, issue
from proxy.identity.authenticator import Authenticator, Presented
from proxy.identity.identity import Identity

NOW = 1_800_000_000.0

Fields = list[tuple[bytes, bytes]]


def a_key(name: str = "laptop", scopes: tuple[str, ...] = ("read",)) -> tuple[bytes, ApiKey]:
    text, key = issue(name, NOW, scopes=scopes)
    return text.encode(), key


def knowing(*keys: ApiKey) -> Authenticator:
    authenticator = Authenticator()
    authenticator.replace_keys({key.id: key for key in keys})
    return authenticator


def ask(authenticator: Authenticator, fields: Fields, now: float = NOW) -> Identity:
    caller = authenticator.authenticate(Presented("GET", b"/api/tags", b"", fields, dict(fields)), now)
    assert isinstance(caller, Identity)
    return caller


def bearer(text: bytes) -> Fields:
    return [(b"host", b"localhost"), (b"authorization", b"Bearer " + text)]


def told(authenticator: Authenticator, fields: Fields, now: float = NOW) -> ProxyError:
    with pytest.raises(ProxyError) as refused:
        ask(authenticator, fields, now)
    return refused.value


@pytest.mark.parametrize("place", ["bearer", "x-api-key", "basic"])
def test_a_key_in_any_place_lets_its_holder_in(place: str) -> None:
    text, key = a_key("build server", ("read", "push"))
    fields = {
        "bearer": bearer(text),
        "x-api-key": [(b"x-api-key", text)],
        "basic": [(b"authorization", b"Basic " + b64encode(b"anybody:" + text))],
    }
    caller = ask(knowing(a_key()[1], key), fields[place])
    assert caller == Identity("api_key", key.id, "build server", frozenset({"read", "push"}))


def test_every_key_is_told_from_the_others() -> None:
    pairs = [a_key(f"key {number}", (scope,)) for number, scope in enumerate(["read", "push", "manage"])]
    authenticator = knowing(*(key for _, key in pairs))
    for text, key in pairs:
        caller = ask(authenticator, bearer(text))
        assert (caller.key_id, caller.key_name, caller.scopes) == (key.id, key.name, key.scopes)


def test_unknown_revoked_wrong_and_unreadable_look_the_same() -> None:
    text, key = a_key()
    revoked_text, revoked = a_key()
    authenticator = knowing(key, replace(revoked, revoked=NOW - 1))
    wrong = text[:-1] + (b"0" if text[-1:] != b"0" else b"1")
    answers = [
        told(authenticator, fields)
        for fields in (
            bearer(a_key()[0]),
            bearer(revoked_text),
            bearer(wrong),
            bearer(text[:-1]),
            bearer(text.upper()),
            bearer(b"sk-proj-0123456789"),
            bearer(b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."),
            [(b"authorization", b"Token " + text)],
            [(b"authorization", b"Basic !")],
            [(b"x-api-key", b"\xff" * len(text))],
        )
    ]
    assert {(a.code, a.status, a.message, a.headers) for a in answers} == {
        (answers[0].code, 401, answers[0].message, answers[0].headers)
    }
    assert answers[0].code == "invalid_credentials"


def test_a_key_without_its_scheme_is_refused() -> None:
    text, key = a_key()
    assert told(knowing(key), [(b"authorization", text)]).code == "invalid_credentials"


def test_an_expired_key_is_refused_as_expired_from_its_second_on() -> None:
    text, key = a_key()
    authenticator = knowing(replace(key, expires=NOW + 10))
    assert ask(authenticator, bearer(text), NOW + 9.9).key_id == key.id
    assert told(authenticator, bearer(text), NOW + 10).code == "expired_credentials"


def test_without_a_credential_the_caller_is_asked_for_one() -> None:
    _, key = a_key()
    assert told(knowing(key), [(b"host", b"localhost")]).code == "missing_credentials"


def test_two_keys_are_refused_even_if_both_are_good() -> None:
    (first, one), (second, two) = a_key(), a_key()
    assert told(knowing(one, two), [*bearer(first), (b"x-api-key", second)]).code == "ambiguous_credentials"


def test_where_keys_are_switched_off_a_good_one_is_refused_like_a_bad_one() -> None:
    text, key = a_key()
    authenticator = Authenticator(api_keys=False)
    authenticator.replace_keys({key.id: key})
    assert told(authenticator, bearer(text)).code == "invalid_credentials"
    assert told(authenticator, []).code == "missing_credentials"


def test_before_the_store_was_read_nobody_is_known() -> None:
    assert told(Authenticator(), bearer(a_key()[0])).code == "invalid_credentials"


def test_new_keys_count_and_old_ones_stop_at_once() -> None:
    (first, one), (second, two) = a_key(), a_key()
    authenticator = knowing(one)
    authenticator.replace_keys({two.id: two})
    assert ask(authenticator, bearer(second)).key_id == two.id
    assert told(authenticator, bearer(first)).code == "invalid_credentials"


def test_a_changed_grant_holds_at_once() -> None:
    text, key = a_key(scopes=("read",))
    authenticator = knowing(key)
    authenticator.replace_keys({key.id: replace(key, name="desk", scopes=frozenset({"push"}))})
    caller = ask(authenticator, bearer(text))
    assert (caller.key_name, caller.scopes) == ("desk", frozenset({"push"}))


def test_during_a_rotation_both_secrets_are_the_same_caller() -> None:
    old, key = a_key()
    new = old[:15] + a_key()[0][15:]  # the id stays, the secret is another one
    authenticator = knowing(replace(key, secrets=(*key.secrets, Secret(digest(new)))))
    assert ask(authenticator, bearer(old)) == ask(authenticator, bearer(new))
    assert told(authenticator, bearer(old[:15] + a_key()[0][15:])).code == "invalid_credentials"


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        (["good"], ["good"], False),
        (["good"], [], True),
        (["good"], ["revoked"], True),
        (["good"], ["expired"], False),
        (["revoked"], ["revoked"], False),
        (["revoked"], [], False),
        (["revoked"], ["good"], False),
        ([], ["good"], False),
        ([], ["revoked"], False),
    ],
)
def test_only_a_key_that_was_good_and_is_revoked_or_gone_ends_its_requests(
    before: list[str], after: list[str], gone: bool
) -> None:
    _, key = a_key()
    _, neighbour = a_key()
    states = {
        "good": key,
        "revoked": replace(key, revoked=NOW),
        "expired": replace(key, expires=NOW - 1),
    }
    authenticator = knowing(neighbour, *(states[state] for state in before))
    keys = [neighbour, *(states[state] for state in after)]
    assert authenticator.replace_keys({k.id: k for k in keys}) == ({key.id} if gone else set())


def test_no_refusal_holds_what_was_presented() -> None:
    text, key = a_key()
    authenticator = knowing(replace(key, expires=NOW))
    for fields in (bearer(text), bearer(text + b"x"), [*bearer(text), (b"x-api-key", text + b"x")]):
        error = told(authenticator, fields)
        assert text[15:40].decode() not in f"{error!r} {error.message} {error.headers!r}"


KNOWN = knowing(a_key()[1])


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key"]), st.binary(max_size=80)), max_size=3)
)
def test_nothing_that_was_made_up_lets_anybody_in(fields: Fields) -> None:
    error = told(KNOWN, fields)
    assert error.code in {"missing_credentials", "invalid_credentials", "ambiguous_credentials"}
