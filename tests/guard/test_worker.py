"""What goes to the process that parses large bodies, and what comes back: the same as without it."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.guard import worker
from proxy.guard.judge import Asked, judge
from proxy.policy.body import Facts
from proxy.policy.model_names import ModelName
from proxy.policy.routes import ROUTES, ModelPlace, match

CHAT = match("POST", b"/api/chat")
FORM = match("POST", b"/v1/audio/transcriptions")
assert CHAT is not None
assert FORM is not None

plain = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=64), st.booleans())
facts = st.builds(
    Facts,
    names=st.lists(st.builds(ModelName, st.text(max_size=20), st.booleans()), max_size=3).map(tuple),
    remote=st.booleans(),
    web_tools=st.booleans(),
    insecure=st.booleans(),
    debug=st.booleans(),
    keep_alive=st.one_of(st.none(), plain),
    options=st.dictionaries(st.sampled_from(["num_ctx", "num_predict", "max_tokens"]), plain),
)


def answers(*asked: tuple[Asked, bytes]) -> list[bytes]:
    requests = io.BytesIO(b"".join(worker.question(one, len(body)) + body for one, body in asked))
    written = io.BytesIO()
    worker.serve(requests, written)
    return written.getvalue().splitlines()


@given(facts)
def test_facts_come_back_as_they_were(found: Facts) -> None:
    line = json.dumps(["facts", worker.encode(found)]).encode()
    assert worker.decode(line) == found


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.model.value.startswith("body")], ids=str
)
def test_the_process_reads_a_body_as_it_would_be_read_in_place(route: object) -> None:
    asked = Asked(route, None)  # type: ignore[arg-type]
    body = json.dumps(
        {"model": "a", "source": "b", "destination": "c", "from": "d:cloud", "options": {"num_ctx": 1}}
    ).encode()
    (line,) = answers((asked, body))
    assert worker.decode(line) == judge(asked, [body])


def test_bodies_are_answered_in_their_order_and_a_refusal_ends_nothing() -> None:
    assert CHAT is not None
    good, bad = b'{"model":"a"}', b'{"model":"a","Model":"b"}'
    lines = answers(*((Asked(CHAT, None), body) for body in (good, bad, good)))
    assert worker.decode(lines[0]) == worker.decode(lines[2]) == judge(Asked(CHAT, None), [good])
    with pytest.raises(ProxyError) as refused:
        worker.decode(lines[1])
    assert (refused.value.code, refused.value.status) == ("unreadable_body", 400)


def test_a_form_is_read_by_its_content_type() -> None:
    assert FORM is not None
    assert FORM.model is ModelPlace.FORM_MODEL
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    (line,) = answers((Asked(FORM, b"multipart/form-data; boundary=b"), body))
    assert worker.decode(line).names == (ModelName("whisper:latest", False),)


def test_a_body_for_which_memory_is_short_is_refused_and_the_next_one_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert CHAT is not None
    good = b'{"model":"a"}'

    def judge_or_not(asked: Asked, pieces: list[bytes]) -> Facts:
        if pieces[0] != good:
            raise MemoryError
        return judge(asked, pieces)

    monkeypatch.setattr(worker, "judge", judge_or_not)
    first, second = answers((Asked(CHAT, None), b"[]"), (Asked(CHAT, None), good))
    with pytest.raises(ProxyError) as refused:
        worker.decode(first)
    assert refused.value.code == "body_too_large"
    assert worker.decode(second).names == (ModelName("a:latest", False),)


@pytest.mark.parametrize("answer", [b"", b"{}", b"[1]", b'["facts", 1]', b'["refused", []]', b"\xff"])
def test_what_is_no_answer_is_not_taken_for_one(answer: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        worker.decode(answer)
