"""From samples to a table in Markdown: medians, ratios of medians, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.figures import BESIDE, PROMISED, Figure, Limit

_PEERS = ("nginx", "Caddy")
_ALL = ("ours", *_PEERS, "FastAPI + httpx", "direct")
Samples = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
Row = list[str]


def promised(samples: Samples) -> str:
    """The table of what must be reached; figures that were not measured for us are left out."""
    head = ["figure", "ours", "spread", *_PEERS, "ratio", "must", "aim", "verdict"]
    return _table(
        head, [_promised(figure, samples) for figure in PROMISED if _values(samples, figure, "ours")]
    )


def beside(samples: Samples) -> str:
    """The table of what stands beside it, with the load straight on the fake Ollama."""
    rows = []
    for figure in BESIDE:
        cells = [_cell(_median(samples, figure, who), figure.unit) for who in _ALL]
        if any(cells):
            rows.append([figure.title, *cells])
    return _table(["beside it", *_ALL], rows)


def verdict(value: float, limit: Limit) -> str:
    """`aim`, `must` or `missed`; `value` is the ratio where the limit has a peer."""
    if limit.aim is not None and _reaches(value, limit.aim, limit):
        return "aim"
    return "must" if _reaches(value, limit.must, limit) else "missed"


def _reaches(value: float, bound: float, limit: Limit) -> bool:
    return value >= bound if limit.at_least else value <= bound


def missed(samples: Samples) -> list[str]:
    """Titles of the figures that stay short of their must."""
    rows = (_promised(figure, samples) for figure in PROMISED if _values(samples, figure, "ours"))
    return [row[0] for row in rows if row[-1] == "missed"]


def _promised(figure: Figure, samples: Samples) -> Row:
    values = _values(samples, figure, "ours")
    ours = median(values)
    ratios, musts, aims, verdicts = [], [], [], []
    for limit in figure.limits:
        unit = f"x {limit.against}" if limit.against else f" {figure.unit}"
        musts.append(f"{limit.must:g}{unit}")
        if limit.aim is not None:
            aims.append(f"{limit.aim:g}{unit}")
        compared = _compared(ours, _median(samples, figure, limit.against)) if limit.against else ours
        if compared is None:
            ratios.append(f"no {limit.against}")
            verdicts.append("not compared")
            continue
        if limit.against:
            ratios.append(f"{compared:.2f}{unit}")
        verdicts.append(verdict(compared, limit))
    spread = f"{(max(values) - min(values)) / ours:.0%}" if ours and len(values) > 1 else ""
    cells = [_cell(_median(samples, figure, who), figure.unit) for who in _PEERS]
    worst = max(verdicts, key=("aim", "must", "not compared", "missed").index)
    lists = (", ".join(texts) for texts in (ratios, musts, aims))
    return [figure.title, _cell(ours, figure.unit), spread, *cells, *lists, worst]


def _compared(ours: float, theirs: float | None) -> float | None:
    return ours / theirs if theirs else None


def _values(samples: Samples, figure: Figure, who: str) -> list[float]:
    return [values[figure.name] for values in samples.get((figure.load, who), ()) if figure.name in values]


def _median(samples: Samples, figure: Figure, who: str) -> float | None:
    values = _values(samples, figure, who)
    return median(values) if values else None


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f} {unit}".strip()


def _table(head: Row, rows: list[Row]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])
