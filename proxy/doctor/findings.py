"""What a check says of a deployment. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """How bad it is. The number is what the levels are compared by."""

    OK = 0
    NOTE = 1
    """As somebody may have meant it, or something that could not be looked at."""
    WARNING = 2
    """It works, and somebody should see to it."""
    ERROR = 3
    """It does not work, or it is open to people who have no key."""


class Finding(NamedTuple):
    """``code`` names the fact and never changes; ``mend`` is empty where there is nothing to do."""

    level: Level
    code: str
    seen: str
    mend: str = ""


def ok(code: str, seen: str) -> Finding:
    return Finding(Level.OK, code, seen)


def note(code: str, seen: str, mend: str = "") -> Finding:
    return Finding(Level.NOTE, code, seen, mend)


def warning(code: str, seen: str, mend: str) -> Finding:
    return Finding(Level.WARNING, code, seen, mend)


def error(code: str, seen: str, mend: str) -> Finding:
    return Finding(Level.ERROR, code, seen, mend)


def worst(findings: Iterable[Finding]) -> Level:
    return max((finding.level for finding in findings), default=Level.OK)


def exit_code(level: Level) -> int:
    """0 for nothing worse than a note, 1 for a warning, 2 for an error."""
    return max(0, level - Level.NOTE)


def document(findings: Iterable[Finding]) -> dict[str, object]:
    """The JSON document: the worst level, and all findings in order."""
    findings = list(findings)
    return {
        "status": worst(findings).name.lower(),
        "findings": [
            {"level": level.name.lower(), "code": code, "seen": seen, "mend": mend or None}
            for level, code, seen, mend in findings
        ],
    }


def in_words(finding: Finding) -> str:
    """One line for what was seen, and one for how to mend it. Nothing in them moves the cursor."""
    lines = [f"{finding.level.name.lower():<8} {finding.code}: {finding.seen}"]
    if finding.mend:
        lines.append(f"{'':<8} mend: {finding.mend}")
    return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """The text without line ends, control characters and bytes that are not UTF-8."""
    return "".join(character if character.isprintable() else "?" for character in text)
