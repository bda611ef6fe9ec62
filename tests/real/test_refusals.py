"""What is refused: by Ollama in its own words, by the proxy without Ollama ever knowing."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable

import httpx
import pytest

from ..wire.site import Keys
from .answers import without_ours
from .conftest import Ollama, Proxied, model_names

HELLO = [{"role": "user", "content": "Hi"}]

# Faults that Ollama finds: method, path, body.
FAULTS: dict[str, tuple[str, str, bytes]] = {
    f"{path}, {fault}": (method, path, body)
    for method, path in (
        ("POST", "/api/generate"),
        ("POST", "/api/chat"),
        ("POST", "/api/embed"),
        ("POST", "/api/show"),
        ("POST", "/api/copy"),
        ("POST", "/api/create"),
        ("DELETE", "/api/delete"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/embeddings"),
    )
    for fault, body in (
        (
            "unknown model",
            b'{"model":"oap-test-never-made","source":"oap-test-never-made","destination":"oap-test-x",'
            b'"from":"oap-test-never-made","prompt":"Hi","input":"Hi","max_tokens":1,'
            b'"messages":[{"role":"user","content":"Hi"}]}',
        ),
        ("not JSON", b"{not JSON"),
        ("wrong type", b'{"model":1}'),
        ("empty", b""),
    )
    if not (path == "/api/create" and fault == "unknown model")  # Ollama would try to pull it
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_ollama_finds_is_told_in_its_own_words(
    fault: str, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    method, path, body = FAULTS[fault]
    expected, answer = (one.request(method, path, content=body) for one in (direct, proxied(keys.every)))
    assert answer.status_code == expected.status_code
    assert answer.status_code in (400, 404)
    assert without_request_id(answer.content) == without_request_id(expected.content)
    assert without_ours(answer.headers) == without_ours(expected.headers)
    assert (answer.status_code == 404) == ("unknown model" in fault)


def without_request_id(body: bytes) -> bytes:
    """Ollama numbers the errors of /v1/messages."""
    return re.sub(rb'"request_id":"\w+"', b'"request_id":""', body)


def loaded_until(direct: httpx.Client) -> dict[str, str]:
    """When each loaded model is to be unloaded; every question, even an empty one, puts it off.

    Ollama does so a moment after its answer, so it is asked until nothing moves.
    """
    last: dict[str, str] = {}
    while True:
        found = {entry["name"]: entry["expires_at"] for entry in direct.get("/api/ps").json()["models"]}
        if found == last:
            return found
        last = found
        time.sleep(0.2)


@pytest.mark.parametrize(
    "path", ["/api/generate", "/api/chat", "/api/embed", "/v1/chat/completions", "/v1/messages"]
)
def test_a_question_without_the_scope_never_reaches_ollama(
    path: str, ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    question = {"model": ollama.model, "prompt": "Hi", "input": "Hi", "messages": HELLO, "max_tokens": 1}
    direct.post("/api/generate", json={"model": ollama.model}).raise_for_status()
    before = loaded_until(direct)
    assert ollama.model in before
    answer = proxied(keys.read).post(path, json=question)
    assert answer.status_code == 403
    assert b"scope_denied" in answer.content or path == "/v1/messages"
    assert b"inference" in answer.content
    assert loaded_until(direct) == before


def test_an_unload_without_the_scope_never_reaches_ollama(
    ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    direct.post("/api/generate", json={"model": ollama.model}).raise_for_status()
    unload = {"model": ollama.model, "keep_alive": 0}
    assert proxied(keys.read).post("/api/generate", json=unload).status_code == 403
    assert ollama.model in loaded_until(direct)


def test_a_change_without_the_scope_never_reaches_ollama(
    ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys, own_model: Callable[[], str]
) -> None:
    mine, wanted, blob = (
        own_model(),
        own_model(),
        "sha256:" + hashlib.sha256(b"nobody stores this").hexdigest(),
    )
    direct.post("/api/copy", json={"source": ollama.model, "destination": mine}).raise_for_status()
    client = proxied(keys.default)
    answers = [
        client.post("/api/create", json={"model": wanted, "from": ollama.model}),
        client.post("/api/copy", json={"source": ollama.model, "destination": wanted}),
        client.request("DELETE", "/api/delete", json={"model": mine}),
        client.post(f"/api/blobs/{blob}", content=b"nobody stores this"),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert {answer.json()["code"] for answer in answers} == {"scope_denied"}
    assert f"{mine}:latest" in model_names(direct)
    assert f"{wanted}:latest" not in model_names(direct)
    assert direct.head(f"/api/blobs/{blob}").status_code == 404


@pytest.mark.parametrize("key", ["unknown", "revoked", "expired"])
def test_a_key_that_does_not_hold_never_reaches_ollama(
    key: str, ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    direct.post("/api/generate", json={"model": ollama.model}).raise_for_status()
    before = loaded_until(direct)
    answer = proxied(getattr(keys, key)).post("/api/generate", json={"model": ollama.model})
    assert answer.status_code == 401
    assert loaded_until(direct) == before
