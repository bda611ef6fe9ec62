"""The models the simulator claims to have, and which of them are loaded.

- `simulator`       answers at once
- `smollm2:135m`    the same, under the name of a small real model
- `slow`            loads for a while before the response headers; while it stays loaded it answers at once
- `error-midstream` breaks after a few tokens: an `{"error":…}` line on /api, no terminator on /v1

Copies and models made from one of these behave like it. Pulled models behave like `simulator`.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

from proxy.simulator import names
from proxy.simulator.errors import CloudDisabledError, OllamaError
from proxy.simulator.go_json import timestamp
from proxy.simulator.names import Name

KEEP_ALIVE = 300.0  # seconds a model stays loaded: OLLAMA_KEEP_ALIVE's default
CONTEXT_LENGTH = 4096

_BUILT = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z, in nanoseconds

DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "simulator",
    "families": ["simulator"],
    "parameter_size": "0.00M",
    "quantization_level": "F32",
}


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of /api/tags; `load_seconds` is a cold start, `breaks` makes generation fail half-way."""

    name: Name
    modified_ns: int = _BUILT
    load_seconds: float = 0.0
    breaks: bool = False

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.key.encode()).hexdigest()

    @property
    def size(self) -> int:
        return 98_363_007

    def listed(self) -> dict[str, object]:
        return {
            "name": self.name.shortest,
            "model": self.name.shortest,
            "modified_at": timestamp(self.modified_ns),
            "size": self.size,
            "digest": self.digest,
            "details": DETAILS,
        }


class Catalogue:
    """All models by name, changed by pull, create, copy and delete; and until when each stays loaded."""

    def __init__(self, load_seconds: float) -> None:
        """`load_seconds` is how long the model `slow` takes to load."""
        second = 1_000_000_000
        self._models: dict[str, Model] = {}
        self._loaded_until: dict[str, float] = {}  # Unix seconds
        self._put(Model(_name("simulator", "latest"), _BUILT))
        self._put(Model(_name("smollm2", "135m"), _BUILT - second))
        self._put(Model(_name("slow", "latest"), _BUILT - 2 * second, load_seconds=load_seconds))
        self._put(Model(_name("error-midstream", "latest"), _BUILT - 3 * second, breaks=True))

    def find(self, name: Name) -> Model | None:
        return self._models.get(name.key)

    def all(self) -> list[Model]:
        """Newest first, as Ollama lists them."""
        return sorted(self._models.values(), key=lambda model: -model.modified_ns)

    def add(self, name: Name, like: Model | None = None) -> None:
        """Make `name` exist, behaving like `like`; an existing model keeps the spelling of its name."""
        existing = self._models.get(name.key)
        model = like or existing or Model(name)
        self._put(replace(model, name=existing.name if existing else name, modified_ns=time.time_ns()))

    def remove(self, name: Name) -> None:
        del self._models[name.key]
        self._loaded_until.pop(name.key, None)

    def is_loaded(self, model: Model) -> bool:
        return self._loaded_until.get(model.name.key, 0.0) > time.time()

    def keep_loaded(self, model: Model, seconds: float | None) -> None:
        """Count `seconds` (None: the default; 0: unload) from now; a model deleted meanwhile stays away."""
        if model.name.key in self._models:
            self._loaded_until[model.name.key] = time.time() + (KEEP_ALIVE if seconds is None else seconds)

    def running(self) -> list[dict[str, object]]:
        """The models of /api/ps, the one that stays longest first."""
        loaded = [model for model in self._models.values() if self.is_loaded(model)]
        loaded.sort(key=lambda model: -self._loaded_until[model.name.key])
        return [self._process(model) for model in loaded]

    def _process(self, model: Model) -> dict[str, object]:
        return {
            "name": model.name.shortest,
            "model": model.name.shortest,
            "size": 2 * model.size,
            "digest": model.digest,
            "details": DETAILS,
            "expires_at": timestamp(int(self._loaded_until[model.name.key] * 1e9)),
            "size_vram": 0,
            "context_length": CONTEXT_LENGTH,
        }

    def _put(self, model: Model) -> None:
        self._models[model.name.key] = model


def _name(model: str, tag: str) -> Name:
    return Name("registry.ollama.ai", "library", model, tag)


def wanted(
    catalogue: Catalogue, text: str, missing: str = "model '{}' not found", cloud: str = "remote model is"
) -> Model:
    """The model that a request calls `text`; raises what Ollama would answer, `missing` being its 404."""
    if not text:
        raise OllamaError(404, "model '' not found")
    if names.is_cloud(text):
        raise CloudDisabledError(cloud)
    name = names.parse(text)
    if name is None:
        raise OllamaError(400, "invalid model name")
    model = catalogue.find(name)
    if model is None:
        raise OllamaError(404, missing.format(text))
    return model
