"""Usage as people and scripts read it: aligned text, CSV, a JSON document. Pure.

Rows are those of `proxy.store.usage_query`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.store.listing import rfc3339
from proxy.store.usage_query import COLUMNS, SUMS, By

_HEADINGS = {
    "key_id": "KEY ID",
    "key_name": "KEY",
    "model": "MODEL",
    "day": "DAY",
    "requests": "REQUESTS",
    "input_tokens": "INPUT TOKENS",
    "output_tokens": "OUTPUT TOKENS",
    "seconds": "SECONDS",
}

Rows = Sequence[Mapping[str, Any]]


def document(rows: Rows, start: int, end: int) -> dict[str, object]:
    """What becomes the JSON document; times are RFC 3339 in UTC."""
    return {
        "from": rfc3339(start),
        "to": rfc3339(end),
        "rows": [{**row, "seconds": round(row["seconds"], 3)} for row in rows],
    }


def csv_text(rows: Rows, by: Sequence[By]) -> str:
    """RFC 4180, with a header, its last line without an end. What is unknown is empty.

    No field begins with a character that a spreadsheet takes for a formula: names of keys and of models
    begin with a letter, a digit or ``_``.
    """
    text = io.StringIO()
    names = _names(by)
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        writer.writerow([f"{row[name]:.3f}" if name == "seconds" else row[name] for name in names])
    return text.getvalue().removesuffix("\n")


def table(rows: Rows, by: Sequence[By]) -> str:
    """One line a row under a line of headings, then the total; numbers are aligned to the right."""
    names = _names(by)
    total = {name: sum(row[name] for row in rows) for name in SUMS}
    lines = [
        [_HEADINGS[name] for name in names],
        *([_shown(row[name]) for name in names] for row in rows),
        [_shown(total.get(name, "")) for name in names],
    ]
    lines[-1][0] = "total"
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in SUMS else cell.ljust(width)
            for name, cell, width in zip(names, line, widths, strict=True)
        )
        for line in lines
    )


def _names(by: Sequence[By]) -> list[str]:
    return [*(name for one in by for name in COLUMNS[one]), *SUMS]


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
    return str(value)
