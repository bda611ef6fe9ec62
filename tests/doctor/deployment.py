"""A deployment in a folder of its own, an Ollama that says what the test says, and the walk."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from proxy.config import load
from proxy.doctor.findings import Finding
from proxy.doctor.walk import walk

from ..wire.site import free_port, toml

MODEL = {"name": "tiny:latest", "size": 1000}
TOKEN = {"response": "Hi", "done": True, "load_duration": 0}


class Ollama:
    """Answers like one that is well; ``answers`` are by path, ``None`` is 404. ``asked`` is what came."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers: dict[str, object] = {
            "/api/version": {"version": "0.24.0"},
            "/api/tags": {"models": [MODEL]},
            "/api/ps": {"models": []},
            "/api/status": {"cloud": {"disabled": True, "source": "env"}},
            "/api/show": {"capabilities": ["completion"]},
            "/api/generate": TOKEN,
        }
        self.wait = 0.0
        self.status = 200
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.server = ThreadingHTTPServer((host, port), _handler(self))
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def ollama(host: str = "127.0.0.1", port: int = 0) -> Iterator[Ollama]:
    server = Ollama(host, port)
    try:
        yield server
    finally:
        server.stop()


def _handler(ollama: Ollama) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # or each half of an answer waits for the other half to be acknowledged

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            ollama.asked.append((self.path, json.loads(body) if body else {}))
            if self.path == "/api/generate":
                time.sleep(ollama.wait)
            answer = ollama.answers.get(self.path)
            text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(404 if answer is None else ollama.status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class Deployment:
    """``tables`` are those of its configuration."""

    def __init__(self, folder: Path, url: str, **tables: dict[str, Any]) -> None:
        self.folder = folder
        self.file = folder / "config.toml"
        self.tables: dict[str, dict[str, Any]] = {
            "listen": {"address": f"127.0.0.1:{free_port()}", "max_connections": 64},
            "upstream": {"url": url},
            "ops": {"address": f"127.0.0.1:{free_port()}"},
            "store": {"url": "sqlite:///data/keys.db"},
        }
        for table, values in tables.items():
            self.tables.setdefault(table, {}).update(values)

    @property
    def store(self) -> Path:
        return self.folder / "data" / "keys.db"

    def write(self) -> Path:
        self.file.write_text(toml(self.tables))
        self.file.chmod(0o600)
        return self.file

    def walk(self) -> dict[str, Finding]:
        """The findings by their codes."""

        async def collect() -> list[Finding]:
            config = load(self.write(), {})
            return [finding async for finding in walk(config, self.file, lambda _: None)]

        findings = asyncio.run(collect())
        assert not {finding.code for finding in findings} & {"check_failed", "check_timed_out"}
        return {finding.code: finding for finding in findings}
