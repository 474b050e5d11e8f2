"""How a measurement is told: a table, a plot, and one line of JSON at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.core.rows import Row

_WIDTH = 150

Line = tuple[str, list[float], list[float]]
"""A name, and what it joins: where, and how much."""


def print_table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in columns))
    console = Console(stderr=True)
    if not console.is_terminal:  # a file has no edge to break at
        console = Console(stderr=True, width=_WIDTH)
    console.print(table)


def print_json(added: Sequence[Row], left: Sequence[str]) -> None:
    """End a run: what it has measured, and what the next one has to."""
    print(json.dumps({"rows": list(added), "left": list(left)}))


def draw_bars(path: Path, values: Mapping[str, float], label: str, floor: float = 0.0) -> None:
    """Draw a bar a name, the first at the top, and the floor, where there is one, as a line."""
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(values)), dpi=110, layout="constrained")
    axes = figure.subplots()
    names = list(values)[::-1]
    axes.bar_label(axes.barh(names, [values[name] for name in names]), fmt="%.4g", padding=3)
    axes.margins(x=0.12)
    if floor:
        axes.axvline(floor, color="0.3", linestyle=":", label=f"floor, {floor:.3g}")
        axes.legend(frameon=False)
    axes.set_xlabel(label)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_lines(path: Path, lines: Sequence[Line], labels: tuple[str, str]) -> None:
    """Draw lines over an axis of counts or shares."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, over, values in lines:
        axes.plot(over, values, marker="o", label=name)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.2)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
