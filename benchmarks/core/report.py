"""Tables on standard error, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.core.rows import Row

_WIDTH = 220

Line = tuple[str, list[float], list[float]]
"""A name, and the x and y values of its points."""


def print_table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in columns))
    console = Console(stderr=True)
    if not console.is_terminal:  # a file has no width to wrap at
        console = Console(stderr=True, width=_WIDTH)
    console.print(table)


def draw_bars(path: Path, values: Mapping[str, float], label: str, floor: float = 0.0) -> None:
    """Draw a bar for each name, the first at the top. A positive floor is a vertical line."""
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(values)), dpi=110, layout="constrained")
    axes = figure.subplots()
    names = list(values)[::-1]
    axes.bar_label(axes.barh(names, [values[name] for name in names]), fmt="%.4g", padding=3)
    axes.margins(x=0.12)
    if floor:
        axes.axvline(floor, color="0.3", linestyle=":", label=f"floor, {floor:.3g}")
        axes.legend(frameon=False)
    axes.set_xlabel(label)
    figure.savefig(path)


def draw_lines(
    path: Path, lines: Sequence[Line], labels: tuple[str, str], *, is_log: bool = False
) -> None:
    """Draw lines; `labels` are those of the x and y axes."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, x, y in lines:
        axes.plot(x, y, marker="o", label=name)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if is_log:
        axes.loglog()
    else:
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False)
    figure.savefig(path)
