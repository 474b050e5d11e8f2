"""The table of figures, and where it stands in the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MARKS = ("<!-- figures -->", "<!-- /figures -->")


@dataclass(frozen=True)
class Row:
    """A metric, its value, the target, and the least value for a training on the CPU alone."""

    metric: str
    value: str
    target: str
    least: str


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def percentages(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {percent(share)}" for name, share in shares.items())


def table(rows: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = ["| metric | value | target | CPU only |", "| --- | --- | --- | --- |"]
    lines += [f"| {r.metric} | {r.value} | {r.target} | {r.least} |" for r in rows]
    return "\n".join(lines)


def write_figures(card: Path, rows: list[Row]) -> None:
    """Replace the table between the marks of the card."""
    text = card.read_text("utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    card.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}", "utf-8")


def merge_rows(earlier: list[Row], measured: list[Row]) -> list[Row]:
    """Return the earlier rows with measured ones in their places; new metrics come last."""
    by_metric = {row.metric: row for row in measured}
    merged = [by_metric.pop(row.metric, row) for row in earlier]
    return [*merged, *by_metric.values()]
