"""Where a key may stand, and what is answered when it stands there wrongly."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from .conftest import Connect
from .messages import check_refusal, request
from .site import QUERY, Keys, basic, well_formed_key
from .upstream import Upstream

PATH = "/api/version"


def fields(*lines: str | bytes) -> Callable[[Keys], list[bytes]]:
    """Header lines with KEY, OTHER and BASIC(user:password) filled in."""

    def fill(keys: Keys) -> list[bytes]:
        filled = []
        for line in lines:
            raw = line.encode() if isinstance(line, str) else line
            raw = raw.replace(b"OTHER", keys.read.encode()).replace(b"KEY", keys.default.encode())
            before, mark, rest = raw.partition(b"BASIC(")
            if mark:
                inside, _, after = rest.rpartition(b")")
                raw = before + base64.b64encode(inside) + after
            filled.append(raw)
        return filled

    return fill


ACCEPTED = {
    "bearer": fields("Authorization: Bearer KEY"),
    "bearer_in_lower_case": fields("authorization: bearer KEY"),
    "bearer_in_upper_case": fields("AUTHORIZATION: BEARER KEY"),
    "bearer_with_two_blanks": fields("Authorization: Bearer  KEY"),
    "bearer_with_blanks_around": fields("Authorization:  \tBearer KEY \t"),
    "x_api_key": fields("X-Api-Key: KEY"),
    "x_api_key_in_lower_case": fields("x-api-key: KEY"),
    "basic": fields("Authorization: Basic BASIC(ollama:KEY)"),
    "basic_in_lower_case": fields("Authorization: basic BASIC(ollama:KEY)"),
    "basic_without_a_user": fields("Authorization: Basic BASIC(:KEY)"),
    "basic_with_any_user": fields("Authorization: Basic BASIC(Käthe Müller:KEY)"),
    "the_same_key_in_two_places": fields("Authorization: Bearer KEY", "X-Api-Key: KEY"),
    "the_same_key_in_basic_and_x_api_key": fields("X-Api-Key: KEY", "Authorization: Basic BASIC(u:KEY)"),
    "the_same_authorization_twice": fields("Authorization: Bearer KEY", "Authorization: Bearer KEY"),
    "the_same_key_as_bearer_and_basic": fields(
        "Authorization: Bearer KEY", "Authorization: Basic BASIC(u:KEY)"
    ),
    "the_same_x_api_key_twice": fields("X-Api-Key: KEY", "X-Api-Key: KEY"),
    "an_empty_bearer_beside_a_key": fields("Authorization: Bearer", "X-Api-Key: KEY"),
}

AMBIGUOUS = {
    "bearer_and_x_api_key": fields("Authorization: Bearer KEY", "X-Api-Key: OTHER"),
    "x_api_key_and_basic": fields("X-Api-Key: KEY", "Authorization: Basic BASIC(u:OTHER)"),
    "two_bearers": fields("Authorization: Bearer KEY", "Authorization: Bearer OTHER"),
    "bearer_and_basic": fields("Authorization: Bearer KEY", "Authorization: Basic BASIC(u:OTHER)"),
    "two_x_api_keys": fields("X-Api-Key: KEY", "X-Api-Key: OTHER"),
    "a_good_key_and_a_foreign_one": fields("Authorization: Bearer KEY", "X-Api-Key: sk-ant-0000"),
    "a_foreign_key_and_a_good_one": fields("Authorization: Bearer sk-0000", "X-Api-Key: KEY"),
    "keys_that_differ_in_case": fields("Authorization: Bearer KEY", "X-Api-Key: KEYx"),
    "a_good_key_and_an_unknown_scheme": fields("Authorization: Digest username=u", "X-Api-Key: KEY"),
}

MISSING = {
    "nothing": fields(),
    "an_empty_authorization": fields("Authorization:"),
    "a_blank_authorization": fields("Authorization:  \t "),
    "an_empty_bearer": fields("Authorization: Bearer"),
    "a_blank_bearer": fields("Authorization: Bearer   "),
    "an_empty_x_api_key": fields("X-Api-Key:"),
    "a_key_in_a_cookie": fields("Cookie: key=KEY"),
    "a_key_in_proxy_authorization": fields("Proxy-Authorization: Bearer KEY"),
    "a_key_in_a_field_of_another_name": fields("Api-Key: KEY"),
    "a_key_in_a_field_with_underscores": fields("X_Api_Key: KEY"),
    "a_basic_without_a_password": fields("Authorization: Basic BASIC(KEY:)"),
}

INVALID = {
    "no_scheme": fields("Authorization: KEY"),
    "an_unknown_scheme": fields("Authorization: Token KEY"),
    "digest": fields('Authorization: Digest username="u", response="KEY"'),
    "scheme_and_key_without_a_blank": fields("Authorization: BearerKEY"),
    "scheme_with_a_colon": fields("Authorization: Bearer: KEY"),
    "two_keys_in_one_field": fields("Authorization: Bearer KEY, Bearer KEY"),
    "a_list_of_keys": fields("X-Api-Key: KEY, KEY"),
    "a_bearer_in_x_api_key": fields("X-Api-Key: Bearer KEY"),
    "a_key_in_quotes": fields('Authorization: Bearer "KEY"'),
    "a_key_with_a_tail": fields("X-Api-Key: KEY0"),
    "a_key_with_an_equals_sign": fields("X-Api-Key: KEY="),
    "a_key_in_upper_case": lambda keys: [b"X-Api-Key: " + keys.default.upper().encode()],
    "a_key_without_its_last_character": lambda keys: [b"X-Api-Key: " + keys.default[:-1].encode()],
    "a_key_with_another_prefix": lambda keys: [b"X-Api-Key: sk_" + keys.default[4:].encode()],
    "a_foreign_key": fields("Authorization: Bearer sk-proj-0123456789"),
    "the_id_alone": lambda keys: [b"X-Api-Key: " + keys.default[:14].encode()],
    "a_true_id_with_another_secret": lambda keys: [
        b"X-Api-Key: " + well_formed_key(keys.default.split("_")[1], "A" * 43).encode()
    ],
    "an_unknown_key": lambda keys: [b"X-Api-Key: " + keys.unknown.encode()],
    "a_revoked_key": lambda keys: [b"X-Api-Key: " + keys.revoked.encode()],
    "an_overlong_key": fields("X-Api-Key: " + "a" * 20_000),
    "an_overlong_bearer": fields("Authorization: Bearer KEY" + "a" * 20_000),
    "a_latin_1_key": fields(b"X-Api-Key: KEY\xe4"),
    "a_utf_8_bearer": fields("Authorization: Bearer schlüssel"),
    "a_scheme_outside_of_ascii": fields("Authorization: Bearër KEY"),
    "basic_that_is_not_base64": fields("Authorization: Basic !!!!"),
    "basic_with_a_key_in_clear": fields("Authorization: Basic u:KEY"),
    "basic_with_broken_padding": lambda keys: [
        b"Authorization: Basic " + basic("usr", keys.default).rstrip("=").encode() + b"==="
    ],
    "basic_with_bytes_that_are_not_utf_8": fields(b"Authorization: Basic BASIC(u:KEY\xff\xfe)"),
    "basic_with_a_nul": fields(b"Authorization: Basic BASIC(u:KEY\0)"),
    "basic_with_a_line_break": fields(b"Authorization: Basic BASIC(u:KEY\r\nX-A: 1)"),
    "an_ollama_signature_that_signs_nothing": fields("Authorization: c3NoLWVkMjU1MTk=:c2lnbmF0dXJl"),
    "a_jwt_without_an_issuer": fields("Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."),
}


@pytest.mark.parametrize("place", ACCEPTED)
def test_a_key_is_taken_and_not_passed_on(
    place: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    assert connect().request(request("GET", PATH, None, *ACCEPTED[place](keys))).status == 200
    heard = upstream.reached()
    assert heard
    assert keys.default.encode() not in heard
    assert basic("ollama", keys.default).encode() not in heard
    names = {name.lower() for name, _ in upstream.requests[0].headers}
    assert not names & {"authorization", "x-api-key"}


@pytest.mark.parametrize("place", AMBIGUOUS)
def test_two_credentials_are_refused_whichever_is_good(
    place: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    answer = connect().request(request("GET", PATH, None, *AMBIGUOUS[place](keys)))
    check_refusal(answer, 400, "ambiguous_credentials")
    assert upstream.reached() == b""


@pytest.mark.parametrize("place", MISSING)
def test_no_credential_is_answered_401(place: str, connect: Connect, keys: Keys, upstream: Upstream) -> None:
    answer = connect().request(request("GET", PATH, None, *MISSING[place](keys)))
    check_refusal(answer, 401, "missing_credentials")
    assert upstream.reached() == b""


@pytest.mark.parametrize("fault", INVALID)
def test_a_wrong_credential_is_answered_401(
    fault: str, connect: Connect, keys: Keys, upstream: Upstream, good: Callable[[], None]
) -> None:
    answer = connect().request(request("GET", PATH, None, *INVALID[fault](keys)))
    check_refusal(answer, 401, "invalid_credentials")
    assert upstream.reached() == b""
    good()


def test_unknown_revoked_and_wrong_keys_look_the_same(connect: Connect, keys: Keys) -> None:
    client = connect()
    answers = [
        client.request(request("GET", PATH, key))
        for key in (keys.unknown, keys.revoked, keys.default[:-1] + "~", "sk-0000")
    ]
    assert len({answer.body for answer in answers}) == 1
    told = [
        [(name, value) for name, value in answer.headers if name.lower() not in ("x-request-id", "date")]
        for answer in answers
    ]
    assert told.count(told[0]) == len(told)


def test_an_expired_key_is_told_so(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    check_refusal(connect().request(request("GET", PATH, keys.expired)), 401, "expired_credentials")
    assert upstream.reached() == b""


def test_a_key_in_the_query_string_does_not_count(connect: Connect, keys: Keys, upstream: Upstream) -> None:
    answer = connect().request(request("GET", f"{PATH}?key={keys.default}&{QUERY}=1"))
    check_refusal(answer, 401, "missing_credentials")
    assert upstream.reached() == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("place", ["nothing", "an_empty_bearer", "no_scheme", "an_overlong_key"])
def test_the_anonymous_route_ignores_credentials(
    method: str, place: str, connect: Connect, keys: Keys, upstream: Upstream
) -> None:
    lines = {**MISSING, **INVALID}[place](keys)
    assert connect().request(request(method, "/", None, *lines), method).status == 200
    assert keys.default.encode() not in upstream.reached()
    assert {name.lower() for name, _ in upstream.requests[0].headers}.isdisjoint(
        {"authorization", "x-api-key"}
    )


def test_the_anonymous_route_ignores_two_credentials(connect: Connect, keys: Keys) -> None:
    lines = AMBIGUOUS["bearer_and_x_api_key"](keys)
    assert connect().request(request("GET", "/", None, *lines)).status == 200


def test_a_refusal_does_not_end_the_connection(connect: Connect, keys: Keys) -> None:
    client = connect()
    for _ in range(3):
        check_refusal(client.request(request("GET", PATH, keys.unknown)), 401, "invalid_credentials")
        assert client.request(request("GET", PATH, keys.default)).status == 200
