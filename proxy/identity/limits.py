"""What a caller may ask of a model beside its name: bounds of a request's own options. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit. Tokens for the first two, seconds for the others.

    Stored with a key, and told by JWTs, as an object of whole numbers under these names.
    """

    max_context: int | None = None
    """The largest ``num_ctx`` that may be asked for."""
    max_output_tokens: int | None = None
    """The largest answer; a request must then say how long its answer may become."""
    min_keep_alive: int | None = None
    """The shortest ``keep_alive``, so that nobody unloads a model for all."""
    max_keep_alive: int | None = None
    """The longest ``keep_alive``, so that nobody pins a model."""

    @property
    def any(self) -> bool:
        return self != NO_LIMITS


NO_LIMITS = Limits()
NAMES = tuple(field.name for field in fields(Limits))


def limits_from(members: Mapping[str, object]) -> Limits:
    """The limits of an object such as ``{"max_context": 4096}``.

    Raises ValueError where a name is unknown or a value is no whole number from 1 to 2**53.
    """
    for name, value in members.items():
        if name not in NAMES or type(value) is not int or not 1 <= value <= 2**53:
            raise ValueError(f"not an object of {', '.join(NAMES)} with whole numbers from 1")
    return Limits(**members)  # type: ignore[arg-type]
