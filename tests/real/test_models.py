"""Reading, making and deleting models and blobs through the proxy."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from ..wire.site import Keys
from .answers import ask, unchanging, without_ours
from .conftest import Ollama, Proxied, model_names

NewName = Callable[[], str]

READ = {
    "running": ("GET", "/"),
    "running, head": ("HEAD", "/"),
    "version": ("GET", "/api/version"),
    "version, head": ("HEAD", "/api/version"),
    "tags": ("GET", "/api/tags"),
    "tags, head": ("HEAD", "/api/tags"),
    "ps": ("GET", "/api/ps"),
    "show": ("POST", "/api/show"),
    "models": ("GET", "/v1/models"),
    "model": ("GET", "/v1/models/{model}"),
}


@pytest.fixture
def client(proxied: Proxied, keys: Keys) -> httpx.Client:
    """Ollama through the proxy, with the scopes read and manage."""
    return proxied(keys.every)


@pytest.mark.parametrize("what", READ)
def test_what_is_read_is_byte_for_byte_what_ollama_says(
    what: str, ollama: Ollama, direct: httpx.Client, proxied: Proxied, keys: Keys
) -> None:
    method, path = READ[what]
    path = path.format(model=ollama.model)
    body = {"model": ollama.model} if method == "POST" else None
    expected, answer = (ask(one, method, path, body) for one in (direct, proxied(keys.read)))
    assert answer.status == expected.status == 200
    assert unchanging(answer.body) == unchanging(expected.body)
    assert without_ours(answer.headers) == without_ours(expected.headers)
    assert answer.headers.get("content-length") == expected.headers.get("content-length")
    assert bool(answer.body) == (method != "HEAD")


def test_a_model_is_made_copied_and_deleted(
    client: httpx.Client, direct: httpx.Client, ollama: Ollama, own_model: NewName
) -> None:
    made, copy = own_model(), own_model()

    answer = ask(
        client, "POST", "/api/create", {"model": made, "from": ollama.model, "parameters": {"num_ctx": 321}}
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.documents()[-1] == {"status": "success"}
    assert len(answer.documents()) > 2

    copied = client.post("/api/copy", json={"source": made, "destination": copy})
    assert (copied.status_code, copied.content) == (200, b"")
    parameters = direct.post("/api/show", json={"model": copy}).json()["parameters"]
    assert re.search(r"num_ctx +321\b", parameters)

    for name in (made, copy):
        deleted = client.request("DELETE", "/api/delete", json={"model": name})
        assert (deleted.status_code, deleted.content) == (200, b"")
    assert not model_names(direct) & {f"{made}:latest", f"{copy}:latest"}


@pytest.fixture
def blob(direct: httpx.Client, ollama: Ollama, own_model: NewName) -> Iterator[bytes]:
    """Text that no blob holds yet. It is taken away with a model that has it as its licence."""
    text = os.urandom(100_000).hex()
    yield text.encode()
    name = own_model()
    direct.post("/api/create", json={"model": name, "from": ollama.model, "license": text, "stream": False})
    direct.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()
    assert direct.head(f"/api/blobs/{digest_of(text.encode())}").status_code == 404


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def in_pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 30_000):
        yield data[start : start + 30_000]


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_blob_is_uploaded(framing: str, blob: bytes, client: httpx.Client, direct: httpx.Client) -> None:
    path = f"/api/blobs/{digest_of(blob)}"
    assert client.head(path).status_code == 404
    stored = client.post(path, content=blob if framing == "content-length" else in_pieces(blob))
    assert ("transfer-encoding" in stored.request.headers) == (framing == "chunked")
    assert (stored.status_code, stored.content) == (201, b"")
    assert client.head(path).status_code == direct.head(path).status_code == 200


def test_a_blob_with_another_digest_is_refused_by_ollama_and_not_kept(
    client: httpx.Client, direct: httpx.Client
) -> None:
    path = f"/api/blobs/{digest_of(b'something else')}"
    expected, answer = (one.post(path, content=b"a blob") for one in (direct, client))
    assert answer.status_code == expected.status_code == 400
    assert answer.content == expected.content
    assert b"digest mismatch" in answer.content
    assert client.head(path).status_code == 404
