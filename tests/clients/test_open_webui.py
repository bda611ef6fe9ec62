"""Open WebUI, by the requests that its source makes: everything passes, and what is refused is told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from ..wire.site import Keys
from .conftest import DENIED, MODEL, OTHER, Served
from .open_webui import OpenWebUI


def settings(proxy: Served, key: str) -> dict[str, str]:
    """Its environment, as docs/clients.md has it."""
    return {
        "OLLAMA_BASE_URL": proxy.url,
        "OLLAMA_API_CONFIGS": json.dumps({"0": {"enable": True, "key": key}}),
        "OPENAI_API_BASE_URL": f"{proxy.url}/v1",
        "OPENAI_API_KEY": key,
        "AIOHTTP_CLIENT_SSL_CERT_FILE": proxy.trust,
        "REQUESTS_CA_BUNDLE": proxy.trust,
    }


def run(
    environ: dict[str, str], act: Callable[[OpenWebUI], Awaitable[Any]]
) -> tuple[Any, list[tuple[str, int]]]:
    async def inside() -> tuple[Any, list[tuple[str, int]]]:
        async with OpenWebUI(environ) as webui:
            return await act(webui), webui.answered

    return asyncio.run(inside())


@pytest.mark.parametrize("kind", ["default", "limited"])
def test_everything_that_its_pages_ask_for_passes(kind: str, proxy: Served, keys: Keys, limited: str) -> None:
    key = limited if kind == "limited" else keys.default
    models, _ = run(settings(proxy, key), lambda webui: webui.models())
    assert MODEL in models
    _, answered = run(settings(proxy, key), lambda webui: webui.everything(MODEL))
    assert len(answered) > 15
    assert [(what, status) for what, status in answered if status != 200] == []


def test_a_chat_streams_its_answer(proxy: Served, limited: str) -> None:
    text, _ = run(settings(proxy, limited), lambda webui: webui.chat(MODEL))
    assert "simulator" in text


def test_a_key_in_the_base_url_is_enough(proxy: Served, limited: str) -> None:
    environ = {**settings(proxy, limited), "OLLAMA_BASE_URL": f"{proxy.url}/~{limited}"}
    text, _ = run(environ | {"OLLAMA_API_CONFIGS": "{}"}, lambda webui: webui.chat(MODEL))
    assert "simulator" in text


def test_it_is_told_what_it_may_not(proxy: Served, keys: Keys, limited: str) -> None:
    text, _ = run(settings(proxy, limited), lambda webui: webui.chat(OTHER))
    assert text.startswith(DENIED)
    refused, _ = run(settings(proxy, keys.default), lambda webui: webui.pull("any"))
    assert "manage" in refused["error"]
    models, _ = run(settings(proxy, keys.unknown), lambda webui: webui.models())
    assert "check the key" in models[0]


def test_a_key_for_some_models_may_not_pull(proxy: Served, unhurried: str) -> None:
    """It asks for `insecure` every time."""
    refused, _ = run(settings(proxy, unhurried), lambda webui: webui.pull(MODEL))
    assert "insecure" in refused["error"]


def test_a_key_with_a_shortest_keep_alive_may_not_unload(proxy: Served, unhurried: str) -> None:
    refused, _ = run(settings(proxy, unhurried), lambda webui: webui.unload(MODEL))
    assert "keep_alive" in refused["error"]


def test_an_administrator_can_upload_and_delete_a_model(proxy: Served, keys: Keys) -> None:
    content = b"GGUF" + os.urandom(300_000)

    async def act(webui: OpenWebUI) -> None:
        await webui.upload("oap-test", content)
        await webui.delete("oap-test")

    _, answered = run(settings(proxy, keys.every), act)
    assert answered == [("blob", 201), ("POST /api/create", 200), ("DELETE /api/delete", 200)]


def test_it_does_not_trust_another_certificate(proxy: Served, limited: str) -> None:
    environ = settings(proxy, limited) | {"AIOHTTP_CLIENT_SSL_CERT_FILE": ""}
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        run(environ, lambda webui: webui.models())
