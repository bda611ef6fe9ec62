"""What is wrong with a configuration: where, what, and what would be right."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``place`` is ``FILE: TABLE.KEY`` or the name of an environment variable."""

    place: str
    wrong: str
    right: str

    def __str__(self) -> str:
        line = f"{self.place}: {self.wrong}; {self.right}"
        # Names come from outside: no line ends, control characters or bytes that are not UTF-8.
        return "".join(character if character.isprintable() else "?" for character in line)


class ConfigError(Exception):
    """The configuration cannot be used. ``str()`` gives one line for each of ``faults``."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class BadValueError(ValueError):
    """A value that its option cannot take. ``str()`` gives what is wrong and what would be right."""

    def __init__(self, wrong: str, right: str) -> None:
        super().__init__(wrong, right)
        self.wrong = wrong
        self.right = right

    def __str__(self) -> str:
        return f"{self.wrong}; {self.right}"


class BadPartsError(ValueError):
    """A value of which several parts are wrong: where in it, as in ``[0].issuer``, and what."""

    def __init__(self, faults: tuple[tuple[str, BadValueError], ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(f"{within}: {fault}" for within, fault in self.faults)


def near(name: str, names: Collection[str], all_of_them: str) -> str:
    """What the writer meant, or all there is."""
    if not names:
        return "remove it"
    close = get_close_matches(name, names, n=1)
    return f'did you mean "{close[0]}"?' if close else f"{all_of_them}: {', '.join(names)}"
