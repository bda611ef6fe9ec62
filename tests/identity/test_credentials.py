"""The one credential of a request: every place and form, alone and beside another."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.identity import credentials

Fields = list[tuple[bytes, bytes]]
Form = Callable[[bytes], tuple[bytes, bytes]]

KEY, OTHER = b"oap_0000000001_key", b"oap_0000000002_other"


def find(fields: Fields) -> bytes:
    found = credentials.find(fields, dict(fields))
    if found is None:
        raise credentials.missing()
    return found[0]


def basic(user_and_password: bytes) -> bytes:
    return b"Basic " + b64encode(user_and_password)


# place and form -> how a key is sent there
FORMS: dict[str, Form] = {
    "bearer": lambda key: (b"authorization", b"Bearer " + key),
    "bearer in lower case": lambda key: (b"authorization", b"bearer " + key),
    "bearer in upper case": lambda key: (b"authorization", b"BEARER " + key),
    "bearer and two blanks": lambda key: (b"authorization", b"Bearer  " + key),
    "bearer with blanks around": lambda key: (b"authorization", b" \tBearer " + key + b"\t "),
    "x-api-key": lambda key: (b"x-api-key", key),
    "x-api-key with blanks around": lambda key: (b"x-api-key", b"\t " + key + b" \t"),
    "basic": lambda key: (b"authorization", basic(b"ollama:" + key)),
    "basic in lower case": lambda key: (b"authorization", b"basic " + b64encode(b"u:" + key)),
    "basic without a user": lambda key: (b"authorization", basic(b":" + key)),
    "basic with a user outside of ASCII": lambda key: (b"authorization", basic("Käthe:".encode() + key)),
    "basic and two blanks": lambda key: (b"authorization", b"Basic  " + b64encode(b"u:" + key)),
}
EMPTY = {
    "authorization": (b"authorization", b""),
    "blank authorization": (b"authorization", b" \t "),
    "bearer": (b"authorization", b"Bearer"),
    "bearer and a blank": (b"authorization", b"Bearer "),
    "bearer and blanks": (b"authorization", b"bearer   \t"),
    "x-api-key": (b"x-api-key", b""),
    "blank x-api-key": (b"x-api-key", b" \t"),
    "basic": (b"authorization", b"Basic"),
    "basic and a blank": (b"authorization", b"Basic "),
    "basic without a password": (b"authorization", basic(b"user:")),
    "basic without user and password": (b"authorization", basic(b":")),
    "basic without a colon": (b"authorization", basic(b"user")),
}
ELSEWHERE = {
    "cookie": (b"cookie", b"key=" + KEY),
    "proxy-authorization": (b"proxy-authorization", b"Bearer " + KEY),
    "api-key": (b"api-key", KEY),
    "underscores": (b"x_api_key", KEY),
    "x-authorization": (b"x-authorization", b"Bearer " + KEY),
    "forwarded": (b"x-forwarded-authorization", b"Bearer " + KEY),
}
# What looks like a credential and is none that we read; it stays one, so that it is refused.
UNREADABLE = {
    "no scheme": (b"authorization", KEY),
    "unknown scheme": (b"authorization", b"Token " + KEY),
    "digest": (b"authorization", b'Digest username="u"'),
    "ssh signature": (b"authorization", b"AAAAC3NzaC1lZDI1NTE5:c2lnbmF0dXJl"),
    "bearer and a tab": (b"authorization", b"Bearer\t" + KEY),
    "no blank behind bearer": (b"authorization", b"Bearer" + KEY),
    "bearer and a colon": (b"authorization", b"Bearer: " + KEY),
    "basic that is not base64": (b"authorization", b"Basic " + KEY),
    "basic without padding": (b"authorization", basic(b"u:" + KEY).rstrip(b"=")),
    "basic with something behind": (b"authorization", basic(b"u:" + KEY) + b" x"),
    "basic in the URL alphabet": (b"authorization", b"Basic dTpv_-8="),
    "basic with a line break": (b"authorization", b"Basic dTpv\ncGE="),
    "basic outside of ASCII": (b"authorization", b"Basic \xe4\xf6\xfc="),
    "a bearer in x-api-key": (b"x-api-key", b"Bearer " + KEY),
    "outside of ASCII": (b"authorization", "Bearër ".encode() + KEY),
}


def refused(fields: Fields) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        find(fields)
    return caught.value


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_is_found_in_every_place_and_form(form: Form) -> None:
    around = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"accept", b"text/plain")]
    assert find([form(KEY)]) == KEY
    assert find([around[0], form(KEY), *around[1:]]) == KEY


@pytest.mark.parametrize("second", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("first", FORMS.values(), ids=FORMS)
def test_two_credentials_are_one_if_they_are_the_same_and_else_refused(first: Form, second: Form) -> None:
    assert find([first(KEY), second(KEY)]) == KEY
    for fields in ([first(KEY), second(OTHER)], [first(OTHER), (b"accept", b"*/*"), second(KEY)]):
        error = refused(fields)
        assert (error.code, error.status) == ("ambiguous_credentials", 400)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_three_credentials_are_as_ambiguous_as_two(form: Form) -> None:
    same = [(b"authorization", b"Bearer " + KEY), (b"x-api-key", KEY)]
    assert find([*same, form(KEY)]) == KEY
    assert refused([*same, form(OTHER)]).code == "ambiguous_credentials"
    assert refused([form(OTHER), *same]).code == "ambiguous_credentials"


@pytest.mark.parametrize("field", EMPTY.values(), ids=EMPTY)
def test_an_empty_place_holds_no_credential(field: tuple[bytes, bytes]) -> None:
    assert refused([field]).code == "missing_credentials"
    assert refused([field, field]).code == "missing_credentials"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("field", EMPTY.values(), ids=EMPTY)
def test_an_empty_place_beside_a_key_does_not_count(field: tuple[bytes, bytes], form: Form) -> None:
    assert find([field, form(KEY)]) == KEY
    assert find([form(KEY), field]) == KEY


@pytest.mark.parametrize("field", ELSEWHERE.values(), ids=ELSEWHERE)
def test_no_other_field_holds_a_credential(field: tuple[bytes, bytes]) -> None:
    assert refused([field]).code == "missing_credentials"
    assert find([field, (b"x-api-key", OTHER)]) == OTHER


def test_a_request_without_any_field_has_no_credential() -> None:
    assert refused([]).code == "missing_credentials"


@pytest.mark.parametrize("field", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_a_credential_and_never_the_key_in_it(field: tuple[bytes, bytes]) -> None:
    assert find([field])
    assert find([field]) != KEY
    assert refused([field, (b"x-api-key", KEY)]).code == "ambiguous_credentials"


def test_two_that_cannot_be_read_are_two_credentials() -> None:
    first, second = (b"authorization", b"Digest a"), (b"authorization", b"Digest b")
    assert refused([first, second]).code == "ambiguous_credentials"
    assert find([first, first])


def test_a_password_may_hold_colons_and_blanks() -> None:
    assert find([(b"authorization", basic(b"user: a:b "))]) == b" a:b "


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (credentials.missing(), b'Bearer realm="ollama-auth-proxy"'),
        (credentials.invalid(), b'Bearer realm="ollama-auth-proxy", error="invalid_token"'),
        (credentials.expired(), b'Bearer realm="ollama-auth-proxy", error="invalid_token"'),
    ],
)
def test_401_says_how_to_authenticate(error: ProxyError, challenge: bytes) -> None:
    # RFC 6750 section 3.1: no error code where the request had no credentials at all.
    assert error.status == 401
    assert error.headers == ((b"WWW-Authenticate", challenge), (b"x-should-retry", b"false"))


names = st.one_of(st.sampled_from([b"authorization", b"x-api-key", b"accept"]), st.binary(max_size=15))
values = st.one_of(
    st.binary(max_size=30),
    st.binary(max_size=30).map(lambda rest: b"Bearer " + rest),
    st.binary(max_size=30).map(lambda rest: b"Basic " + rest),
    st.binary(max_size=30).map(basic),
)
any_fields = st.lists(st.tuples(names, values), max_size=4)


def outcome(fields: Fields) -> bytes | ProxyError:
    try:
        return find(fields)
    except ProxyError as error:
        return error


@given(any_fields)
@example([(b"authorization", b"Basic \xff")])
@example([(b"authorization", b"Basic ===")])
@example([(b"authorization", b"Basic A")])
def test_any_fields_hold_a_credential_or_are_refused(fields: Fields) -> None:
    found = outcome(fields)
    if isinstance(found, ProxyError):
        assert found.code in {"missing_credentials", "ambiguous_credentials"}
        ours = credentials.missing().message
        for _, value in fields:
            text = value.decode("latin-1")
            assert len(value) < 8 or text in ours or text not in found.message
    else:
        assert found
        assert any(name in credentials.PLACES for name, _ in fields)


@given(any_fields, st.randoms(use_true_random=False))
def test_the_order_of_the_fields_does_not_matter(fields: Fields, random: Random) -> None:
    shuffled = list(fields)
    random.shuffle(shuffled)
    first, second = outcome(fields), outcome(shuffled)
    if isinstance(first, ProxyError):
        assert isinstance(second, ProxyError)
        assert second.code == first.code
    else:
        assert second == first
