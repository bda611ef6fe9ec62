"""Pull, create, copy, delete and blobs: enough of them for demos of the manage scope."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import httpx
import ollama
import pytest

from proxy.simulator.text import ANSWER


def names(http: httpx.Client) -> list[str]:
    return [model["name"] for model in http.get("/api/tags").json()["models"]]


def test_a_pull_tells_its_progress_and_the_model_is_there(http: httpx.Client) -> None:
    answer = http.post("/api/pull", json={"model": "Pulled"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    steps = [json.loads(line) for line in answer.text.splitlines()]
    assert steps[0] == {"status": "pulling manifest"}
    assert list(steps[2]) == ["status", "digest", "total", "completed"]
    assert steps[-4]["completed"] == steps[-4]["total"]
    ends = ["verifying sha256 digest", "writing manifest", "success"]
    assert [step["status"] for step in steps[-3:]] == ends
    assert "Pulled:latest" in names(http)
    again = http.post("/api/pull", json={"name": "pulled", "stream": False})
    assert again.text == '{"status":"success"}'
    assert names(http).count("Pulled:latest") == 1, "another spelling is the same model"


def test_create_copy_and_delete_change_the_list(http: httpx.Client, ollama_client: ollama.Client) -> None:
    *_, last = ollama_client.create("made", from_="simulator", stream=True)
    assert last.status == "success"
    ollama_client.copy("made", "copied:v1")
    assert {"made:latest", "copied:v1"} <= set(names(http))
    assert ollama_client.generate("copied:v1", "Hi").response == ANSWER
    assert http.request("DELETE", "/api/delete", json={"model": "MADE"}).content == b""
    ollama_client.delete("copied:v1")
    assert not {"made:latest", "copied:v1"} & set(names(http))


def test_a_copy_behaves_like_its_source(http: httpx.Client) -> None:
    answer = http.post("/api/copy", json={"source": "error-midstream", "destination": "breaks"})
    assert (answer.status_code, answer.content) == (200, b"")
    generated = http.post("/api/generate", json={"model": "breaks", "prompt": "x"})
    assert list(json.loads(generated.text.splitlines()[-1])) == ["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/api/pull", {}, 400, "invalid model name"),
        ("POST", "/api/create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
        ("POST", "/api/copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        ("POST", "/api/copy", {"source": "a b"}, 400, 'source "a b" is invalid'),
        ("POST", "/api/copy", {"source": "x", "destination": "a b"}, 400, 'destination "a b" is invalid'),
        ("DELETE", "/api/delete", {"model": "nope"}, 404, "model 'nope' not found"),
        ("DELETE", "/api/delete", {}, 400, "model is required"),
    ],
)
def test_errors_have_the_status_and_the_words_of_ollama(
    http: httpx.Client, method: str, path: str, body: object, status: int, error: str
) -> None:
    answer = http.request(method, path, json=body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_an_uploaded_blob_is_checked_remembered_and_good_for_create(http: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(64):
            yield bytes([number]) * 65536

    digest = f"sha256:{hashlib.sha256(b''.join(pieces())).hexdigest()}"
    url = f"/api/blobs/{digest}"
    missing = http.head(url)
    assert (missing.status_code, missing.content) == (404, b"")
    refused = http.post("/api/create", json={"model": "from-file", "files": {"a.gguf": digest}})
    assert refused.status_code == 500
    uploaded = http.post(url, content=pieces())
    assert (uploaded.status_code, uploaded.content) == (201, b"")
    assert http.head(url).status_code == 200
    assert http.post(url, content=b"not looked at again").status_code == 200
    made = http.post("/api/create", json={"model": "from-file", "files": {"a.gguf": digest}})
    assert json.loads(made.text.splitlines()[-1]) == {"status": "success"}
    assert "from-file:latest" in names(http)


def test_a_blob_that_does_not_match_its_digest_is_refused_and_forgotten(http: httpx.Client) -> None:
    wanted, found = "sha256:" + "0" * 64, f"sha256:{hashlib.sha256(b'hi').hexdigest()}"
    answer = http.post(f"/api/blobs/{wanted}", content=b"hi")
    assert answer.status_code == 400
    assert answer.json() == {"error": f'digest mismatch, expected "{wanted}", got "{found}"'}
    assert http.head(f"/api/blobs/{wanted}").status_code == 404
    malformed = http.post("/api/blobs/x", content=b"hi")
    assert (malformed.status_code, malformed.json()) == (400, {"error": "invalid digest format"})
