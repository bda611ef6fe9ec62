"""The `ollama` package, set up as its users do: headers or OLLAMA_API_KEY, and SSL_CERT_FILE."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import ollama as package
import pytest

from ..wire.site import Keys
from .conftest import Ollama

MESSAGES = [{"role": "user", "content": "Count from one to twenty."}]
FEW = {"num_predict": 5, "temperature": 0}


@pytest.fixture
def client(trusted: str, keys: Keys) -> package.Client:
    return package.Client(trusted, headers={"Authorization": f"Bearer {keys.every}"})


@pytest.fixture
def async_client(trusted: str, keys: Keys) -> package.AsyncClient:
    return package.AsyncClient(trusted, headers={"X-Api-Key": keys.every})


def test_it_asks_and_reads(client: package.Client, ollama: Ollama) -> None:
    answer = client.generate(ollama.model, "Count from one to twenty.", options=FEW)
    assert (answer.done, answer.eval_count) == (True, 5)
    reply = client.chat(ollama.model, MESSAGES, options=FEW)
    assert reply.message.content
    assert reply.eval_count == 5
    assert len(client.embed(ollama.model, ["one", "two"]).embeddings) == 2
    assert len(client.embeddings(ollama.model, "one").embedding) > 100
    assert ollama.model in [model.model for model in client.list().models]
    assert ollama.model in [model.model for model in client.ps().models]
    assert client.show(ollama.model).details


def test_it_streams(client: package.Client, ollama: Ollama, seconds_a_token: float) -> None:
    reply = client.chat(ollama.model, MESSAGES, stream=True, options={**FEW, "num_predict": 12})
    arrivals = [(time.monotonic(), part) for part in reply]
    assert arrivals[-1][1].done
    assert len(arrivals) > 10
    assert arrivals[-1][0] - arrivals[0][0] > seconds_a_token, "the parts came at once"

    *parts, last = client.generate(ollama.model, "Count.", stream=True, options=FEW)
    assert len(parts) > 2
    assert last.done


def test_it_asks_and_streams_asynchronously(async_client: package.AsyncClient, ollama: Ollama) -> None:
    async def run() -> None:
        answer = await async_client.generate(ollama.model, "Count.", options=FEW)
        assert (answer.done, answer.eval_count) == (True, 5)
        parts = [
            part async for part in await async_client.chat(ollama.model, MESSAGES, stream=True, options=FEW)
        ]
        assert len(parts) > 3
        assert parts[-1].done
        assert len((await async_client.embed(ollama.model, "one")).embeddings) == 1

    asyncio.run(run())


def test_it_takes_the_key_from_the_environment(
    trusted: str, keys: Keys, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", keys.read)
    assert ollama.model in [model.model for model in package.Client(trusted).list().models]


def test_it_makes_copies_and_deletes_models(
    client: package.Client, ollama: Ollama, own_model: Callable[[], str]
) -> None:
    made, copy = own_model(), own_model()
    *parts, last = client.create(made, from_=ollama.model, system="Be brief.", stream=True)
    assert parts
    assert last.status == "success"
    assert client.copy(made, copy).status == "success"
    assert "Be brief." in (client.show(copy).modelfile or "")
    for name in (made, copy):
        assert client.delete(name).status == "success"


@pytest.fixture
def blob(
    tmp_path: Path, direct: httpx.Client, ollama: Ollama, own_model: Callable[[], str]
) -> Iterator[Path]:
    """A file that is no blob yet; what is made of it goes with a model that has it as its licence."""
    file = tmp_path / "blob"
    file.write_text(os.urandom(100_000).hex())
    yield file
    name = own_model()
    licence = {"model": name, "from": ollama.model, "license": file.read_text(), "stream": False}
    direct.post("/api/create", json=licence).raise_for_status()
    direct.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()


def test_it_uploads_a_blob(client: package.Client, direct: httpx.Client, blob: Path) -> None:
    digest = client.create_blob(blob)
    assert direct.head(f"/api/blobs/{digest}").status_code == 200


def test_it_uploads_a_blob_asynchronously(
    async_client: package.AsyncClient, direct: httpx.Client, blob: Path
) -> None:
    digest = asyncio.run(async_client.create_blob(blob))
    assert direct.head(f"/api/blobs/{digest}").status_code == 200


def test_it_tells_an_unknown_model(client: package.Client, async_client: package.AsyncClient) -> None:
    with pytest.raises(package.ResponseError, match="oap-test-none") as raised:
        client.generate("oap-test-none", "Hi")
    assert raised.value.status_code == 404
    with pytest.raises(package.ResponseError, match="oap-test-none") as raised:
        asyncio.run(async_client.generate("oap-test-none", "Hi"))
    assert raised.value.status_code == 404


def test_it_tells_a_wrong_key(trusted: str, keys: Keys, ollama: Ollama) -> None:
    headers = {"Authorization": f"Bearer {keys.unknown}"}
    client, async_client = (
        package.Client(trusted, headers=headers),
        package.AsyncClient(trusted, headers=headers),
    )
    with pytest.raises(package.ResponseError) as whole:
        client.chat(ollama.model, MESSAGES)
    with pytest.raises(package.ResponseError) as stream:
        list(client.chat(ollama.model, MESSAGES, stream=True))
    with pytest.raises(package.ResponseError) as asynchronous:
        asyncio.run(async_client.embed(ollama.model, "one"))
    for raised in (whole, stream, asynchronous):
        assert raised.value.status_code == 401
        assert "key" in raised.value.error


def test_it_tells_a_refused_upload(trusted: str, keys: Keys, tmp_path: Path) -> None:
    """The refusal comes before the upload ends; it must not drown in a reset connection."""
    file = tmp_path / "blob"
    file.write_bytes(os.urandom(3_000_000))
    headers = {"Authorization": f"Bearer {keys.read}"}
    with pytest.raises(package.ResponseError, match="manage") as raised:
        package.Client(trusted, headers=headers).create_blob(file)
    assert raised.value.status_code == 403
    with pytest.raises(package.ResponseError, match="manage") as raised:
        asyncio.run(package.AsyncClient(trusted, headers=headers).create_blob(file))
    assert raised.value.status_code == 403


def test_it_does_not_trust_another_certificate(
    trusted: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    client = package.Client(trusted, headers={"Authorization": f"Bearer {keys.read}"})
    with pytest.raises(ConnectionError):
        client.list()
