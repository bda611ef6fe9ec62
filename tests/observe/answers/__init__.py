"""Answers of a real Ollama 0.24 (smollm2:135m), recorded byte for byte.

Each file holds the request line, the content type, an empty line, and the body as it came. Those named
``…-text-of-…`` and ``…-tool-call-with-metrics-…`` were asked in a format that makes the model itself write
what looks like metrics. Embeddings were asked with few dimensions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.policy.routes import Route, match


@dataclass(frozen=True)
class Recorded:
    name: str
    route: Route
    content_type: bytes
    body: bytes

    @property
    def streamed(self) -> bool:
        return not self.content_type.startswith(b"application/json")

    def documents(self) -> list[dict[str, Any]]:
        """The JSON of the body, or of its lines, or of the data of its events."""
        return documents(self.body)


def documents(body: bytes) -> list[dict[str, Any]]:
    lines = (line.removeprefix(b"data: ") for line in body.split(b"\n"))
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def _read(file: Path) -> Recorded:
    head, _, body = file.read_bytes().partition(b"\n\n")
    request, content_type = head.split(b"\n")
    method, path = request.split(b" ")
    route = match(method.decode(), path)
    assert route is not None
    return Recorded(file.stem, route, content_type.removeprefix(b"Content-Type: "), body)


RECORDED = {file.stem: _read(file) for file in sorted(Path(__file__).parent.glob("*.http"))}
