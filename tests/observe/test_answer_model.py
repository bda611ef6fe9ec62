"""An answer's model is told from its first bytes, and never from what a model or a client writes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.observe.answer_model import model_in
from proxy.policy.routes import ROUTES, Route, match

from .answers import RECORDED, Recorded

KEPT = 2048
"""Bytes that are kept of either end."""

UNNAMED = {"/api/embeddings", "/v1/audio/transcriptions"}
METERED = [row for row in ROUTES if row.metered]
NAMED = [row for row in METERED if row.path not in UNNAMED]


def route(path: str) -> Route:
    found = match("POST", path.encode())
    assert found is not None
    return found


def model_of(row: Route, body: bytes) -> str | None:
    return model_in(row, body[:KEPT], body[-KEPT:])


def line(**members: Any) -> bytes:
    """One object as Go writes it: no blanks, the members in order, and some characters escaped."""
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace") + b"\n"


def answers(model: str, text: str = "hi", rest: object = None) -> dict[str, list[bytes]]:
    """The beginning of each route's answers, by api/types.go, openai/ and anthropic/ of Ollama's source."""
    native: dict[str, Any] = {"model": model, "created_at": "2026-01-01T00:00:00Z"}
    chunk = {"id": "x", "object": "o", "created": 1, "model": model, "system_fingerprint": "fp_ollama"}
    choice = {"text": text, "index": 0, "finish_reason": None}
    completion = {"id": "x", "object": "o", "created": 1, "choices": [choice], "model": model}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
    content = [{"type": "tool_use", "id": "c", "name": text, "input": rest}]
    response = {"id": "r", "object": "response", "created_at": 1, "completed_at": 2, "status": "completed"}
    created = {"background": False, "error": None, "instructions": text, "metadata": {}, "model": model}
    data = [{"object": "embedding", "embedding": [0.5, -1.5e-05], "index": 0}]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return {
        "/api/generate": [line(**native, response=text, done=False)],
        "/api/chat": [
            line(**native, message={"role": "assistant", "content": text, "tool_calls": rest}, done=False),
            line(
                model=model, remote_model="r", remote_host="https://h", created_at="x", message={}, done=True
            ),
        ],
        "/api/embed": [line(model=model, embeddings=[[0.5, -1.5e-05]], total_duration=5)],
        "/v1/chat/completions": [
            b"data: " + line(**chunk, choices=[{"delta": {"content": text}}]) + b"\n",
            line(**chunk, choices=[{"message": {"content": text}}]),
        ],
        "/v1/completions": [b"data: " + line(**completion) + b"\n", line(**chunk, choices=[choice])],
        "/v1/messages": [
            b"event: message_start\ndata: "
            + line(type="message_start", message={**message, "content": []})
            + b"\n",
            line(**message, content=content),
        ],
        "/v1/responses": [
            b"event: response.created\ndata: " + line(response={**created, "tools": [rest]}) + b"\n",
            line(**response, incomplete_details=None, model=model, output=[{"text": text}], tools=[rest]),
        ],
        "/v1/embeddings": [line(object="list", data=data, model=model, usage=usage)],
    }


SHAPES = [(path, number) for path, found in answers("m").items() for number in range(len(found))]


@pytest.mark.parametrize("answer", RECORDED.values(), ids=RECORDED)
def test_a_real_answer_names_its_model(answer: Recorded) -> None:
    expected = "oap-tools" if "tool-call" in answer.name else "smollm2:135m"
    assert model_of(answer.route, answer.body) == (None if answer.route.path in UNNAMED else expected)


@pytest.mark.parametrize("answer", RECORDED.values(), ids=RECORDED)
def test_where_its_first_bytes_came_in_part_it_is_unknown(answer: Recorded) -> None:
    whole = model_of(answer.route, answer.body)
    known = [
        model_in(answer.route, answer.body[:length], answer.body[-KEPT:])
        for length in range(min(KEPT, len(answer.body)) + 1)
    ]
    assert set(known) <= {None, whole}
    if answer.route.path != "/v1/embeddings":
        assert known == sorted(known, key=lambda name: name is not None), "known, then unknown again"
        assert known[0] is None


def test_every_route_that_names_a_model_is_here() -> None:
    assert set(answers("m")) == {row.path for row in NAMED}


@pytest.mark.parametrize(("path", "number"), SHAPES)
@pytest.mark.parametrize(
    "model", ["llama3.2", "hf.co/acme/M-1_x.y:Q4_K_M", "a<b>&c", "ü:\U0001f600", 'q"u\\o\nte', "\u2028", ""]
)
def test_a_name_is_read_as_it_was_meant(path: str, number: int, model: str) -> None:
    assert model_of(route(path), answers(model)[path][number]) == model


FORGED = '"model":"forged"'
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=50),
    st.sampled_from(
        [
            FORGED,
            f'",{FORGED},"x":"',
            f"{{{FORGED}}}",
            f'}}],{FORGED},"usage":{{}}}}\n',
            f'event: message_start\ndata: {{"type":"message_start","message":{{{FORGED}}}}}\n\n',
            "\\" * 5,
            '"' * 5,
        ]
    ),
)
OBJECTS = st.recursive(
    st.one_of(st.integers(), st.none(), TEXTS, st.just("forged")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["model", "message", "response", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(text=TEXTS, rest=OBJECTS, padding=st.sampled_from([0, 100, 3000]))
@settings(max_examples=100, deadline=None)
def test_nothing_that_is_said_is_taken_for_the_model(text: str, rest: object, padding: int) -> None:
    for path, found in answers("real", "x" * padding + text, rest).items():
        for body in found:
            # Where a long text or long instructions stand before the name, it is out of sight.
            assert model_of(route(path), body) in ({"real"} if padding < 1000 else {"real", None})


@given(text=TEXTS, rest=OBJECTS)
@settings(max_examples=60, deadline=None)
def test_an_answer_that_names_none_has_none(text: str, rest: object) -> None:
    for row in METERED:
        for body in (
            line(error=text),
            line(text=text),
            line(embedding=[1.5]),
            line(x=[rest], y={"model": "forged"}),
            line(x={"a": text, "model": "forged"}),
            line(embeddings=[], y="z", usage={"model": "forged"}),
        ):
            assert model_of(row, body) is None, (row.path, body)


def test_embeddings_that_broke_off_name_none() -> None:
    row, body = route("/v1/embeddings"), RECORDED["openai-embeddings"].body.rstrip(b"\n")
    assert model_of(row, body) == "smollm2:135m"
    for end in (body[:-1], body + b"{}\n", body + b'\n{"error":"x"}\n'):
        assert model_of(row, end) is None


@pytest.mark.parametrize("path", sorted(UNNAMED))
def test_routes_that_name_none_have_none_whatever_comes(path: str) -> None:
    for found in answers("real").values():
        for body in found:
            assert model_of(route(path), body) is None


@pytest.mark.parametrize("name", [b"5", b"null", b"[]", b'"\xff"', b'"\\ud800"', b'"\\x"', b'"a', b'"\n"'])
def test_a_name_that_is_none_is_unknown(name: bytes) -> None:
    assert model_of(route("/api/chat"), b'{"model":' + name + b',"done":false}\n') is None


@given(
    row=st.sampled_from(METERED),
    head=st.one_of(st.binary(max_size=300), st.binary(max_size=30).map(lambda data: b'{"model":"' + data)),
    tail=st.one_of(st.binary(max_size=300), st.just(RECORDED["openai-embeddings"].body[-300:])),
    gone=st.integers(0, 40),
)
@example(route("/v1/embeddings"), b"", b'}],"model":"' + b"\\" * 2000, 0)
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise(row: Route, head: bytes, tail: bytes, gone: int) -> None:
    for end in (tail, tail[: len(tail) - gone]):
        found = model_in(row, head, end)
        assert found is None or found.encode() is not None


@pytest.mark.parametrize(
    "filling", [b"a", b"\\", b'"', b'\\"', b'"a":"b",', b'{"a":', b"[{", b'"a":1,', b"\n", b'}],"model":"']
)
def test_no_bytes_are_slow(filling: bytes) -> None:
    beginnings = (b"", b'{"model":"', b'{"id":"', b'{"id":1,"choices":[{"text":"', b'{"response":{"a":"')
    tail = (filling * 32768)[:32768]
    for row in (route("/api/chat"), route("/v1/embeddings")):
        for beginning in beginnings:
            head = (beginning + tail)[:KEPT]
            turns = []
            for _ in range(15):
                begun = time.thread_time()
                model_in(row, head, tail)
                turns.append(time.thread_time() - begun)
            assert min(turns) < 0.0005, beginning
