"""What Open WebUI 0.12.4 asks of an Ollama, as its source has it; the package itself brings torch along.

`python -m tests.clients.open_webui serve` reads the same environment, lists the models, lets the first chat,
and prints the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import aiohttp
import requests

QUESTION = "Why is the sky blue? 🦙 世界 \u2028 {'model': 'x:cloud'}"
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVQI12P4+s8NAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_model",
        "description": "Wählt 🦙 aus",
        "parameters": {"type": "object", "properties": {"model": {"type": "string"}}, "required": ["model"]},
    },
}


def trust(environ: dict[str, str]) -> ssl.SSLContext | bool:
    """env.py, _parse_ssl_env: AIOHTTP_CLIENT_SSL_CERT_FILE is trusted, and nothing else is."""
    file = environ.get("AIOHTTP_CLIENT_SSL_CERT_FILE", "").strip()
    return ssl.create_default_context(cafile=file) if file else True


@dataclass
class OpenWebUI:
    """The first of the connections to Ollama, and the first to an OpenAI API where there is one."""

    environ: dict[str, str]
    answered: list[tuple[str, int]] = field(default_factory=list)
    """Every request, and the status that it got."""

    def __post_init__(self) -> None:
        self.url = self.environ.get("OLLAMA_BASE_URL", "").rstrip("/")
        configs = json.loads(self.environ.get("OLLAMA_API_CONFIGS", "{}"))
        self.key = configs.get("0", configs.get(self.url, {})).get("key")
        self.openai_url = self.environ.get("OPENAI_API_BASE_URL", "").rstrip("/")
        self.openai_key = self.environ.get("OPENAI_API_KEY", "")
        self.ssl = trust(self.environ)

    async def __aenter__(self) -> OpenWebUI:
        connector = aiohttp.TCPConnector(ttl_dns_cache=300, limit=100, limit_per_host=30)
        self.session = aiohttp.ClientSession(connector=connector, trust_env=True)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.close()

    async def ask(self, method: str, url: str, payload: Any = None, key: str | None = None) -> Any:
        """routers/ollama.py, send_request and send_get_request; lists for lines or events."""
        headers = {"Content-Type": "application/json"}
        if token := key or self.key:
            headers["Authorization"] = f"Bearer {token}"
        data = payload if payload is None or isinstance(payload, str | bytes) else dumps(payload)
        async with self.session.request(method, url, data=data, headers=headers, ssl=self.ssl) as answer:
            self.answered.append((f"{method} {answer.url.path}", answer.status))
            if answer.content_type in ("application/x-ndjson", "text/event-stream"):
                return [line async for line in answer.content if line.strip()]
            text = await answer.text()
            return json.loads(text) if text else None

    # What its pages ask for

    async def models(self) -> list[str]:
        """routers/ollama.py, get_all_models."""
        tags, _ = await asyncio.gather(
            self.ask("GET", f"{self.url}/api/tags"), self.ask("GET", f"{self.url}/api/ps")
        )
        return [model["model"] for model in tags["models"]] if "models" in tags else [tags["error"]]

    async def chat(self, model: str, **more: Any) -> str:
        """routers/ollama.py, generate_chat_completion; the texts of the stream, or the error."""
        payload = {
            "model": model,
            "messages": [
                {"role": "system", "content": "Be brief. 🙂"},
                {"role": "user", "content": QUESTION, **more.pop("message", {})},
            ],
            "options": {"temperature": 0.8, "num_ctx": 4096, "stop": ["\n\n"]},
            "stream": True,
            **more,
        }
        answer = await self.ask("POST", f"{self.url}/api/chat", payload)
        if isinstance(answer, dict):
            return str(answer.get("error") or answer["message"]["content"])
        return "".join(json.loads(line)["message"]["content"] for line in answer)

    async def everything(self, model: str) -> None:
        """All kinds of requests that a user and an administrator can cause, model files aside."""
        url = self.url
        await self.ask("GET", f"{url}/api/version")  # the button that verifies a connection
        await self.chat(model)
        await self.chat(model, message={"images": [PICTURE]})
        called = {"index": 0, "id": "call_1", "function": {"name": "get_model", "arguments": {"model": "x"}}}
        await self.chat(model, tools=[TOOL], message={"tool_calls": [called]})
        await self.chat(model, stream=False, keep_alive="5m")  # titles, tags, follow-ups
        await self.chat(model, stream=False, format={"type": "object", "properties": {"model": {}}})
        legacy = json.dumps({"model": model, "messages": [{"role": "user", "content": QUESTION}]})
        await self.ask("POST", f"{url}/api/chat", legacy)  # ENABLE_ORJSON=false: escapes in place of UTF-8
        await self.ask("POST", f"{url}/api/generate", {"model": model, "prompt": QUESTION, "stream": True})
        await self.ask("POST", f"{url}/api/embed", {"model": model, "input": [QUESTION, "two"]})
        await self.ask("POST", f"{url}/api/embeddings", {"model": model, "prompt": QUESTION})
        await self.ask("POST", f"{url}/api/show", {"model": model, "name": model})
        await self.unload(model)
        messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
        chat = {"model": model, "messages": messages, "stream": True}
        await self.ask("POST", f"{url}/v1/chat/completions", chat)
        await self.ask("POST", f"{url}/v1/responses", {"model": model, "input": QUESTION})
        await self.ask("POST", f"{url}/v1/messages", {**chat, "max_tokens": 5})
        await self.rag(model)
        await asyncio.to_thread(self.rag_in_a_thread, model)
        if self.openai_url:
            await self.ask("GET", f"{self.openai_url}/models", key=self.openai_key)
            wanted = {"stream_options": {"include_usage": True}, "tools": [TOOL], **chat}
            await self.ask("POST", f"{self.openai_url}/chat/completions", wanted, self.openai_key)

    async def unload(self, model: str) -> Any:
        """routers/ollama.py, unload_model."""
        body = {"model": model, "keep_alive": 0, "prompt": ""}
        return await self.ask("POST", f"{self.url}/api/generate", body)

    async def rag(self, model: str) -> None:
        """retrieval/utils.py, agenerate_ollama_batch_embeddings."""
        body = {"input": [QUESTION, "two"], "model": model, "truncate": True}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.post(f"{self.url}/api/embed", headers=headers, json=body, ssl=self.ssl) as answer,
        ):
            self.answered.append(("documents", answer.status))

    def rag_in_a_thread(self, model: str) -> None:
        """retrieval/utils.py, generate_ollama_batch_embeddings; `requests` reads REQUESTS_CA_BUNDLE."""
        body: Any = {"input": [QUESTION, "two"], "model": model, "truncate": True}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        with requests.Session() as session:
            session.verify = self.environ.get("REQUESTS_CA_BUNDLE") or True
            session.trust_env = False
            answer = session.post(f"{self.url}/api/embed", headers=headers, json=body)
        self.answered.append(("documents, in a thread", answer.status_code))

    # What an administrator can ask for besides

    async def pull(self, model: str) -> Any:
        """routers/ollama.py, pull_model; it always asks for `insecure`."""
        return await self.ask("POST", f"{self.url}/api/pull", {"model": model, "insecure": True})

    async def upload(self, name: str, content: bytes) -> None:
        """routers/ollama.py, upload_model: the blob in pieces, its length said beforehand."""
        digest = sha256(content).hexdigest()

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 65536):
                yield content[start : start + 65536]

        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(content)),
        }
        blob = f"{self.url}/api/blobs/sha256:{digest}"
        async with self.session.post(blob, data=pieces(), headers=headers, ssl=self.ssl) as answer:
            self.answered.append(("blob", answer.status))
        made = {"model": name, "files": {f"{name}.gguf": f"sha256:{digest}"}, "stream": False}
        await self.ask("POST", f"{self.url}/api/create", made)

    async def delete(self, name: str) -> None:
        await self.ask("DELETE", f"{self.url}/api/delete", {"model": name})


def dumps(payload: Any) -> str:
    """utils/json_codec.py with orjson, which is the default."""
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")


async def serve() -> None:
    async with OpenWebUI(dict(os.environ)) as webui:
        models = await webui.models()
        print("models:", *models)
        print(await webui.chat(models[0]))


if __name__ == "__main__":
    assert sys.argv[1:] == ["serve"], sys.argv
    asyncio.run(serve())
