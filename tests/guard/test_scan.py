"""Whether a body could speak of what is forbidden: the words are found however the body is split."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.guard.scan import Scan
from proxy.policy.routes import ROUTES, ModelPlace, Route

ROWS = {route.path: route for route in ROUTES}
CHAT, FORM = ROWS["/api/chat"], ROWS["/v1/audio/transcriptions"]
WITH_BODY = [route for route in ROUTES if route.model not in (ModelPlace.NONE, ModelPlace.PATH)]
WEB_TOOLS = [ROWS["/v1/messages"], ROWS["/v1/responses"]]


def found(route: Route, *pieces: bytes) -> bool:
    scan = Scan(route)
    for piece in pieces:
        scan.feed(piece)
    return scan.found


WORDS = {
    **{f"cloud on {route.path}": (route, b"cloud") for route in WITH_BODY},
    "in capitals": (CHAT, b"CLOUD"),
    "in both": (CHAT, b"cLouD"),
    "an escape": (CHAT, b"\\u"),
    "an escape that is none": (CHAT, b"\\U"),
    "a tool of messages": (WEB_TOOLS[0], b"web_"),
    "a tool of responses": (WEB_TOOLS[1], b"WEB_"),
    "an encoded part": (FORM, b"transfer-encoding"),
    "an encoded part in capitals": (FORM, b"Transfer-Encoding"),
}


@pytest.mark.parametrize("what", WORDS)
def test_a_word_is_found_wherever_it_is_split(what: str) -> None:
    route, word = WORDS[what]
    for before, after in (
        (b"", b""),
        (b"x" * 40, b""),
        (b"", b"x" * 40),
        (b'{"model":"x:', b'"}'),
        (word[:-1], b""),
    ):
        body = before + word + after
        assert found(route, body)
        assert found(route, *(body[at : at + 1] for at in range(len(body))))
        for first in range(len(body) + 1):
            assert found(route, body[:first], body[first:])
            for second in range(first, len(body) + 1, 3):
                assert found(route, body[:first], b"", body[first:second], body[second:])


@pytest.mark.parametrize("what", WORDS)
def test_a_word_of_which_a_letter_is_missing_or_another_is_not_found(what: str) -> None:
    route, word = WORDS[what]
    for at in range(len(word)):
        body = b"{" + word[:at] + b"." + word[at + 1 :] + b"}"
        assert not found(route, body)
        assert not found(route, *(body[at : at + 1] for at in range(len(body))))
    assert not found(route, word[:-1], b" ", word[-1:])


def test_words_of_other_routes_are_of_no_concern() -> None:
    assert not found(CHAT, b'{"tools":[{"type":"web_search"}],"transfer-encoding":1}')
    assert not found(FORM, b"RIFF\\u0063web_search")


def test_what_was_found_stays_found() -> None:
    scan = Scan(CHAT)
    assert not scan.found
    scan.feed(b"...cloud")
    scan.feed(b"x" * 100)
    assert scan.found


@given(st.sampled_from(WITH_BODY), st.lists(st.binary(max_size=20), max_size=8))
@example(CHAT, [b"clo", b"", b"ud"])
@example(FORM, [b"Transfer-E", b"n", b"coding"])
def test_pieces_are_read_like_the_whole(route: Route, pieces: list[bytes]) -> None:
    assert found(route, *pieces) == found(route, b"".join(pieces))


cloud_names = st.builds(
    "{}:{}{}{}".format,
    st.sampled_from(["x", "acme/y", "größe"]),
    st.sampled_from(["", " ", "\xa0", "7b-", " 7b-"]),
    st.sampled_from(["cloud", "Cloud", "CLOUD"]),
    st.sampled_from(["", " ", "\u3000"]),
)


@given(cloud_names, st.booleans(), st.data())
def test_no_spelling_of_a_cloud_name_in_json_goes_unseen(
    name: str, ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(name, ensure_ascii=ascii_only)
    escaped = "".join(data.draw(st.sampled_from([c, f"\\u{ord(c):04x}"])) for c in name)
    for value in (text, f'"{escaped}"'):
        body = f'{{"model":{value}}}'.encode()
        assert json.loads(body)["model"] == name
        at = data.draw(st.integers(0, len(body)))
        assert found(CHAT, body[:at], body[at:])
