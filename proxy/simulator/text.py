"""What the simulator says instead of a model's answer, and how it counts tokens: by words."""

from __future__ import annotations

import hashlib
import math
import re

ANSWER = (
    "Hello! This is the simulator of ollama-auth-proxy, not a language model. "
    "Every prompt gets this same text, one word at a time, so that streaming, cancelling and "
    "counting tokens can be tried without a model. What you wrote was counted and not kept. "
    "For real answers, start Ollama and point the proxy at it."
)

TOKENS = tuple(re.findall(r"\s*\S+", ANSWER))

DIMENSIONS = 384


def count(text: str) -> int:
    """How many tokens `text` has here; never 0, as every template adds some."""
    return max(1, len(text.split()))


def count_messages(messages: list[object]) -> int:
    """The tokens of a conversation: strings and text parts, and four a message for the template."""
    return sum(4 + _words(message) for message in messages)


def _words(part: object) -> int:
    if isinstance(part, str):
        return len(part.split())
    if isinstance(part, list):
        return sum(_words(item) for item in part)
    if isinstance(part, dict):
        return _words(part.get("content") or part.get("text"))
    return 0


def context(length: int) -> list[int]:
    """The `context` of /api/generate: that many numbers that look like token ids."""
    return [(17 + 7919 * place) % 49152 for place in range(length)]


def embedding(text: str, dimensions: int = 0) -> list[float]:
    """A vector of length 1, always the same for the same text; cut to `dimensions` if that is smaller."""
    size = min(dimensions, DIMENSIONS) if dimensions > 0 else DIMENSIONS
    noise = hashlib.shake_256(text.encode("utf-8", "replace")).digest(2 * size)
    values = [int.from_bytes(noise[2 * i : 2 * i + 2], "big") - 32767.5 for i in range(size)]
    length = math.hypot(*values)
    return [float(f"{value / length:.8g}") for value in values]
