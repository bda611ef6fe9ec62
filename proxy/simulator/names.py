"""Model names as Ollama reads them (types/model/name.go): which spellings mean the same model."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class Name:
    """A valid name with its defaults filled in; `key` is equal for all spellings of one model."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def key(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}".lower()

    @property
    def shortest(self) -> str:
        """What lists show: default host and namespace left out, the tag always there."""
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != "registry.ollama.ai":
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace.lower() == "library" else f"{self.namespace}/{short}"


def is_cloud(text: str) -> bool:
    """Whether Ollama would send this to its vendor's cloud: tag `cloud` or `…-cloud`, maybe with blanks."""
    tag = text.rpartition(":")[2].strip().lower() if ":" in text else ""
    return tag == "cloud" or (tag.endswith("-cloud") and "/" not in tag)


def parse(text: str) -> Name | None:
    """The name meant by `text`, or None where Ollama says `invalid model name`."""
    rest, tag = text.strip(), "latest"
    if rest[-6:].lower() == ":local":
        rest = rest[:-6]
    if rest.rfind(":") > rest.rfind("/"):
        rest, _, tag = rest.rpartition(":")
    rest, slash, model = rest.rpartition("/")
    rest, second_slash, namespace = rest.rpartition("/")
    scheme, found, host = rest.partition("://")
    name = Name(
        (host if found else scheme) if second_slash else "registry.ollama.ai",
        namespace if slash else "library",
        model,
        tag,
    )
    valid = (
        _HOST.fullmatch(name.host)
        and _NAMESPACE.fullmatch(name.namespace)
        and _PART.fullmatch(name.model)
        and _PART.fullmatch(name.tag)
    )
    return name if valid else None
