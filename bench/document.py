"""The part of docs/benchmarks.md that a run writes."""

from __future__ import annotations

BEGIN = "<!-- written by `python -m bench --write`: begin -->"
END = "<!-- written by `python -m bench --write`: end -->"


def replaced(document: str, measured: str) -> str:
    """The document with `measured` between its markers; ValueError unless they are there once."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the document must hold '{BEGIN}' and, after it, '{END}', once each")
    return f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}"
