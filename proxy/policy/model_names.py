"""Model names as Ollama reads them: which spellings mean the same model, and which mean the cloud. Pure.

Source: Ollama's types/model/name.go and internal/modelref/modelref.go. A canonical name is in lower case,
has its tag always, and the default host and namespace never: ``llama3.2:latest``, ``acme/llama:7b``,
``hf.co/acme/llama:latest``. A cloud model's tag is ``cloud`` or ends in ``-cloud``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple


class Reading(Enum):
    """How a route reads the name that it is given."""

    REFERENCE = "reference"
    """Blanks around it and ``:local`` do not count, ``:cloud`` means the cloud: inference, show, pull,
    delete, create's ``from``."""
    AS_WRITTEN = "as written"
    """As it stands (copy, push, create's target)."""


class ModelName(NamedTuple):
    """``canonical`` is empty where Ollama takes the text for no name of a model."""

    canonical: str
    cloud: bool


DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

# Go's unicode.IsSpace; Python's own idea of a blank has four control characters more.
_BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


def trimmed(text: str) -> str:
    """The text without the blanks around it, as Go's strings.TrimSpace leaves it."""
    return text.strip(_BLANKS)


def read_name(text: str, reading: Reading) -> ModelName:
    """The model that Ollama takes the text for. Never raises.

    A name that ends like a cloud model's counts as one wherever it stands: what copy or create would make
    under it could be used in the cloud only.
    """
    if reading is Reading.AS_WRITTEN:
        return ModelName(_canonical(text), _source(text)[1] == "cloud")
    text = trimmed(text)
    base, source = _source(text)
    if not source:
        return ModelName(_canonical(text), False)
    if _source(base)[1]:  # "use either :local or :cloud, not both"
        return ModelName("", source == "cloud" or _source(base)[1] == "cloud")
    if source == "local":
        return ModelName(_canonical(base), False)
    # The spelling that Ollama has for the stub: one tag, even where the name has a tag of its own.
    has_tag = base.rfind(":") > base.rfind("/")
    return ModelName(_canonical(base + ("-cloud" if has_tag else ":cloud")), True)


def _source(text: str) -> tuple[str, str]:
    """The text without its suffix, and ``cloud``, ``local`` or nothing for what the suffix said."""
    before, colon, after = text.rpartition(":")
    if colon:
        after = trimmed(after)
        suffix = after.lower()
        if suffix in ("cloud", "local"):
            return before, suffix
        if suffix.endswith("-cloud") and "/" not in after:
            return f"{before}:{after[:-6]}", "cloud"
    return text, ""


def _canonical(text: str) -> str:
    """The canonical name, or nothing where the text is not a valid name."""
    rest, tag = text, DEFAULT_TAG
    if rest.rfind(":") > rest.rfind("/"):
        rest, _, tag = rest.rpartition(":")
    rest, slash, model = rest.rpartition("/")
    rest, second_slash, namespace = rest.rpartition("/")
    scheme, found, host = rest.partition("://")
    host = (host if found else scheme) if second_slash else DEFAULT_HOST
    if second_slash and not host:  # a scheme alone: the default stands in
        host = DEFAULT_HOST if found else ""
    if not slash:
        namespace = DEFAULT_NAMESPACE
    if not (
        _HOST.fullmatch(host)
        and _NAMESPACE.fullmatch(namespace)
        and _PART.fullmatch(model)
        and _PART.fullmatch(tag)
    ):
        return ""
    return _shortest(host.lower(), namespace.lower(), model.lower(), tag.lower())


def _shortest(host: str, namespace: str, model: str, tag: str) -> str:
    short = f"{model}:{tag}"
    if host != DEFAULT_HOST:
        return f"{host}/{namespace}/{short}"
    return short if namespace == DEFAULT_NAMESPACE else f"{namespace}/{short}"


@lru_cache(maxsize=4096)
def matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a canonical name matches one of the patterns.

    A pattern is written like a name: its default host and namespace and the tag ``latest`` may be left
    out. ``*`` stands for any characters but the slash, ``?`` for one, ``[…]`` for one of a set; a final
    ``*`` without a tag takes every tag, and ``*`` alone every name there is.
    """
    if "*" in patterns:
        return bool
    globs = [[re.compile(translate(segment)) for segment in _segments(pattern)] for pattern in patterns]

    def matches(name: str) -> bool:
        segments = name.split("/")
        return any(
            len(glob) == len(segments) and all(map(re.Pattern.match, glob, segments)) for glob in globs
        )

    return matches


def _segments(pattern: str) -> list[str]:
    pattern = pattern.lower()
    base, source = _source(pattern)
    if source == "cloud":
        pattern = base + ("-cloud" if base.rfind(":") > base.rfind("/") else ":cloud")
    elif source == "local":
        pattern = base
    _, found, without_scheme = pattern.partition("://")
    segments = (without_scheme if found else pattern).split("/")
    if len(segments) == 3 and segments[0] == DEFAULT_HOST:
        del segments[0]
    if len(segments) == 2 and segments[0] == DEFAULT_NAMESPACE:
        del segments[0]
    if ":" not in segments[-1] and not segments[-1].endswith("*"):
        segments[-1] += f":{DEFAULT_TAG}"
    return segments
