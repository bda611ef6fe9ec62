"""LangChain with a key that has limits: what it has to be told."""

from __future__ import annotations

import openai
import pytest
from langchain_openai import ChatOpenAI

from .conftest import MODEL, Served


def test_a_key_for_short_answers_needs_the_name_that_ollama_reads(
    proxy: Served, capped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", proxy.trust)
    url = f"{proxy.url}/v1"
    with pytest.raises(openai.PermissionDeniedError, match="max_tokens"):
        # It is sent as max_completion_tokens, which Ollama does not read.
        ChatOpenAI(model=MODEL, base_url=url, api_key=capped, max_tokens=100).invoke("Hi")  # type: ignore[arg-type, call-arg]
    chat = ChatOpenAI(model=MODEL, base_url=url, api_key=capped, extra_body={"max_tokens": 100})  # type: ignore[arg-type]
    assert "simulator" in chat.invoke("Hi").content
