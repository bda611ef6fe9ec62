"""What the generated pages share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

NOTICE = "<!-- Written by docs/generate.py; change the code or that script, not this page. -->\n"

WIDTH = 120
"""Characters of a line."""


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def filled(text: str, indent: str = "") -> str:
    """One paragraph; ``indent`` is for all lines but the first."""
    return (
        textwrap.fill(
            text, width=WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        + "\n"
    )
