"""How bodies and model names are read: as Go's encoding/json and Ollama's types/model/name.go do."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator import body, names
from proxy.simulator.errors import MalformedError
from proxy.simulator.go_json import encode, timestamp


@pytest.mark.parametrize(
    "raw",
    [
        '{"model":"good"}',
        ' \r\n\t{"model":"good"} trailing',
        '{"Model":"good"}',
        '{"model":"bad","MODEL":"good"}',
        '{"model":"bad","Model":"x","model":"good"}',
        '{"model":"good","model":null}',
        '{"model":"good","options":{"model":"bad"}}',
    ],
)
def test_the_model_that_ollama_would_take_is_taken(raw: str) -> None:
    assert body.read(raw.encode(), "api.ChatRequest").text("model") == "good"


def test_keys_fold_as_in_go() -> None:
    read = body.read('{"\u212aeep_alive":1,"me\u017f\u017fages":[1]}'.encode(), "api.ChatRequest")
    assert read.seconds("keep_alive") == 1
    assert read.items("messages", "[]api.Message") == [1]


@pytest.mark.parametrize(
    "raw", [b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":-Infinity}', b"{]", b'{"a" 1}', b"\xff\xfe"]
)
def test_what_go_cannot_parse_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError, match="invalid character"):
        body.read(raw, "api.ChatRequest")


def test_nesting_without_end_is_malformed() -> None:
    with pytest.raises(MalformedError):
        body.read(b"[" * 200_000, "api.ChatRequest")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_malformed(raw: bytes) -> None:
    with contextlib.suppress(MalformedError):
        body.read(raw, "api.ChatRequest")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("0", 0),
        (0, 0),
        (30, 30),
        (-1, 1e9),
        ("-1s", 1e9),
    ],
)
def test_durations_are_seconds_or_go_durations(value: object, seconds: float) -> None:
    assert body.Body({"keep_alive": value}).seconds("keep_alive") == seconds


@pytest.mark.parametrize(
    "spelling",
    [
        "llama3.2",
        "llama3.2:latest",
        "LLAMA3.2:Latest",
        "library/llama3.2",
        "registry.ollama.ai/library/llama3.2:latest",
        "https://registry.ollama.ai/library/llama3.2",
        "foo://registry.ollama.ai/library/llama3.2",
        " llama3.2 ",
        "llama3.2:local",
    ],
)
def test_all_spellings_of_a_model_are_one(spelling: str) -> None:
    name = names.parse(spelling)
    assert name is not None
    assert name.key == "registry.ollama.ai/library/llama3.2:latest"


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("x", "x:latest"),
        ("me/x:1", "me/x:1"),
        ("hf.co/acme/x", "hf.co/acme/x:latest"),
        ("h:1/n/x", "h:1/n/x:latest"),
    ],
)
def test_names_are_shown_without_their_defaults(text: str, shortest: str) -> None:
    name = names.parse(text)
    assert name is not None
    assert name.shortest == shortest


@pytest.mark.parametrize(
    "text", ["", "a b", "a:b:c", "/x", "x:", ":x", "a//b", "é", "foo://x", "../x", "a/b/c/d"]
)
def test_what_ollama_calls_invalid_is_no_name(text: str) -> None:
    assert names.parse(text) is None


@pytest.mark.parametrize(
    ("text", "cloud"),
    [("x:cloud", True), ("x: Cloud", True), ("x:7b-cloud", True), ("cloud", False), ("x-cloud", False)],
)
def test_cloud_is_in_the_tag(text: str, cloud: bool) -> None:
    assert names.is_cloud(text) is cloud


def test_json_is_written_as_go_writes_it() -> None:
    assert encode({"b": "<&>é", "a": [1, None]}) == '{"b":"\\u003c\\u0026\\u003eé","a":[1,null]}'.encode()


def test_times_have_the_nanoseconds_of_go() -> None:
    assert timestamp(1_767_225_600_000_000_000) == "2026-01-01T00:00:00Z"
    assert timestamp(1_767_225_600_012_300_000) == "2026-01-01T00:00:00.0123Z"
