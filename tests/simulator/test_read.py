"""The routes that only look, and what is answered where there is no route."""

from __future__ import annotations

import httpx
import ollama
import openai
import pytest

JSON = "application/json; charset=utf-8"


def test_the_root_says_that_ollama_is_running(http: httpx.Client) -> None:
    answer = http.get("/")
    assert (answer.status_code, answer.text) == (200, "Ollama is running")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["date"].endswith(" GMT")
    assert "server" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_head_gives_the_headers_of_get_without_the_body(http: httpx.Client, path: str) -> None:
    head, get = http.head(path), http.get(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers.get("content-length") == get.headers.get("content-length")
    assert get.content != b""


def test_version_status_and_ps_have_the_members_of_ollama_in_its_order(http: httpx.Client) -> None:
    version = http.get("/api/version")
    assert version.headers["content-type"] == JSON
    assert version.text == '{"version":"0.0.0-simulator"}'
    assert http.get("/api/status").text == '{"cloud":{"disabled":true,"source":"env"}}'
    http.post("/api/generate", json={"model": "smollm2:135m"})
    loaded = http.get("/api/ps").json()["models"]
    assert "smollm2:135m" in [model["name"] for model in loaded]
    members = "name model size digest details expires_at size_vram context_length"
    assert list(loaded[0]) == members.split()


def test_the_list_names_the_models_made_for_tests_and_the_friendly_one_first(http: httpx.Client) -> None:
    models = http.get("/api/tags").json()["models"]
    names = [model["name"] for model in models]
    assert {"simulator:latest", "smollm2:135m", "slow:latest", "error-midstream:latest"} <= set(names)
    fresh = [name for name in names if name.startswith(("simulator:", "smollm2:", "slow:", "error-"))]
    assert fresh[0] == "simulator:latest"
    assert list(models[0]) == ["name", "model", "modified_at", "size", "digest", "details"]
    details = "parent_model format family families parameter_size quantization_level"
    assert list(models[0]["details"]) == details.split()


def test_the_ollama_client_reads_lists_and_details(ollama_client: ollama.Client) -> None:
    assert "simulator:latest" in [model.model for model in ollama_client.list().models]
    assert ollama_client.show("simulator").capabilities == ["completion"]
    assert ollama_client.ps().models is not None


def test_the_openai_client_reads_models(openai_client: openai.OpenAI) -> None:
    assert "smollm2:135m" in [model.id for model in openai_client.models.list()]
    assert openai_client.models.retrieve("SMOLLM2:135M").id == "SMOLLM2:135M"
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        openai_client.models.retrieve("nope")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nope", 404, None),
        ("GET", "/docs", 404, None),
        ("GET", "/openapi.json", 404, None),
        ("POST", "/api/chat/", 404, None),
        ("GET", "/v1/models/a%2Fb", 404, None),
        ("POST", "/API/chat", 404, None),
        ("POST", "/v1/messages/count_tokens", 404, None),
        ("GET", "/api/chat", 405, "POST"),
        ("HEAD", "/api/ps", 405, "GET"),
        ("DELETE", "/api/tags", 405, "HEAD, GET"),
        ("GET", "/api/blobs/x", 405, "HEAD, POST"),
    ],
)
def test_other_paths_and_methods_are_refused_in_plain_text(
    http: httpx.Client, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers.get("allow")) == (status, allow)
    assert answer.headers["content-type"] == "text/plain"
    if method != "HEAD":
        said = "404 page not found" if status == 404 else "405 method not allowed"
        assert answer.text == said
