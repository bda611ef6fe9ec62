"""Bodies of chats, small and large. The fake Ollama answers them at once, since they ask for no stream."""

from __future__ import annotations

import json
from base64 import b64encode
from random import Random
from typing import Any

PATH = "/api/chat"
SMALL = 1024
LARGE = 10 << 20

_MODEL = "llama3.2"
_TEXT = (
    "the proxy reads a body whole before anything of it goes on because a model starts when it has its answer"
    " „schön“ naïve 模型 and then some of what people paste: def answer(question: str) -> str: return it"
)


def small() -> str:
    """1 KiB as a client sends it in the middle of a conversation; in ASCII, so that it is an argument."""
    options = {"temperature": 0.7, "num_ctx": 4096, "top_p": 0.9, "seed": 42, "stop": ["User:", "\n\n"]}
    messages = [
        {"role": "system", "content": "You are a helpful assistant. Answer briefly, and say so when unsure."},
        {"role": "user", "content": "What does a reverse proxy in front of Ollama have to look at?"},
        {
            "role": "assistant",
            "content": "Who asks, for which model, and with which options.\nThen it forwards.",
        },
    ]
    messages.append({"role": "user", "content": ""})
    chat = {"model": _MODEL, "stream": False, "messages": messages, "options": options, "keep_alive": "5m"}
    messages[-1]["content"] = ("And why is that not enough? " * SMALL)[: SMALL - len(json.dumps(chat))]
    return json.dumps(chat)


def large(kind: str) -> bytes:
    """10 MiB: ``picture`` is a conversation with one of 6 MiB, ``text`` has long messages alone.

    ``numbers`` is what takes longest to read: as many small values as there is room for.
    """
    if kind == "numbers":
        return _filled({"context": [128_000] * ((LARGE - 100) // 8), "messages": []}, "")
    random, words = Random(1), _TEXT.split()
    text = " ".join(
        random.choice(words) + random.choice(["", "", "", "", ",", ".", '."', "\n"]) for _ in range(40_000)
    )
    messages: list[dict[str, Any]] = []
    if kind == "picture":
        picture = b64encode(random.randbytes(6 * LARGE // 10 * 3 // 4)).decode()
        messages.append({"role": "user", "content": "What is in this picture?", "images": [picture]})
    return _filled({"messages": messages}, text)


def _filled(members: dict[str, Any], text: str) -> bytes:
    """The body with as many messages of ``text`` as fit, and the rest of its size in the last one."""
    message, last = {"role": "user", "content": text}, {"role": "user", "content": ""}
    body = {"model": _MODEL, "stream": False, **members}
    room = LARGE - len(_json({**body, "messages": [*members["messages"], last]}))
    body["messages"] = [*members["messages"], *[message] * (room // (len(_json(message)) + 2)), last]
    data, end = _json(body), len(b'"}]}')
    return data[:-end] + b"x" * (LARGE - len(data)) + data[-end:]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
