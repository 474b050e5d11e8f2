"""UNet, encoder and decoder over the rows that share a call: what batching gives, by size."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.flops import Work, count_work
from benchmarks.core.report import draw_lines
from benchmarks.core.roofline import Ceiling
from benchmarks.core.rows import Results, Row
from benchmarks.core.setup import Place
from benchmarks.core.timing import take_turns
from benchmarks.lanes.engine import EngineLane
from service.bench.report import percentile
from service.engine.scheduler import MAX_ADMISSIONS, MAX_RETIREMENTS

KEY = ("part", "size", "batch")
COLUMNS = (
    *KEY, "call_ms", "p95_ms", "row_ms", "gain", "tflops", "share_of_floor",
)  # fmt: skip

_MOST_ROWS = {"unet": None, "encode": MAX_ADMISSIONS, "decode": MAX_RETIREMENTS}
"""The parts, and the most rows that the engine gives to a call of them, if any."""


class Batch(NamedTuple):
    """So many rows in one call of a part."""

    part: str
    rows: int

    def __str__(self) -> str:
        return f"{self.part} of {self.rows}"


@dataclass(frozen=True)
class Sweep:
    """Batches that are to be timed on the engine as it is served, and how."""

    place: Place
    ceiling: Ceiling
    results: Results
    rounds: int
    warm_ups: int

    def left(self, size: int, rows: Sequence[int]) -> list[Batch]:
        """Return the batches of so many rows that have no row yet."""
        return [
            Batch(part, number)
            for part, most in _MOST_ROWS.items()
            for number in rows
            if most is None or number <= most
            if not self.results.is_done(part=part, size=size, batch=number)
        ]

    def run(self, size: int, rows: Sequence[int], budget: Budget, progress: Progress) -> None:
        """Time calls of `size` x `size` pixels in turn, beside those of one row; keep the rows."""
        left = self.left(size, rows)
        if not left or budget.is_spent:
            return
        lane = self._lane(size, max(rows))
        alone = [Batch(part, 1) for part in dict.fromkeys(batch.part for batch in left)]
        calls = {
            str(batch): lane.parts(size, batch.rows)[batch.part]
            for batch in dict.fromkeys([*alone, *left])
        }
        task = progress.add_task(f"batches at {size}", total=self.rounds)
        seen = take_turns(
            calls, rounds=self.rounds, warm_ups=self.warm_ups, budget=budget,
            synchronise=self.place.synchronise, on_round=lambda: progress.advance(task),
        )  # fmt: skip
        work = count_work(self.place, size, size)
        for batch in left:
            self.results.add(self._row(size, batch, seen, work[batch.part]))

    def _lane(self, size: int, max_batch: int) -> EngineLane:
        """Load the engine as it is served by default: compiled and captured on CUDA alone."""
        is_cuda = self.place.is_cuda
        return EngineLane(self.place, "sweep", max_batch=max_batch, is_compiled=is_cuda, size=size)

    def _row(self, size: int, batch: Batch, seen: dict[str, list[float]], work: Work) -> Row:
        call_ms = 1000 * statistics.median(seen[str(batch)])
        alone_ms = 1000 * statistics.median(seen[str(Batch(batch.part, 1))])
        return {
            "part": batch.part,
            "size": size,
            "batch": batch.rows,
            "call_ms": round(call_ms, 3),
            "p95_ms": round(1000 * percentile(seen[str(batch)], 0.95), 3),
            "row_ms": round(call_ms / batch.rows, 3),
            "gain": round(alone_ms * batch.rows / call_ms, 3),
            "tflops": round(batch.rows * work.flops / call_ms / 1e9, 3),
            "share_of_floor": round(work.floor_ms(self.ceiling, batch.rows) / call_ms, 4),
            "rounds": len(seen[str(batch)]),
            "ceiling_tflops": round(self.ceiling.tflops, 3),
            "ceiling_gb_per_s": round(self.ceiling.gb_per_s, 1),
        }


def draw_sweep(path: Path, rows: Sequence[Row]) -> None:
    """Draw the gain of each part and size over the rows that share a call."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name = f"{row['part']}, {row['size']} x {row['size']}"
        points.setdefault(name, []).append((float(row["batch"]), float(row["gain"])))
    lines = [
        (name, [rows for rows, _ in sorted(some)], [gain for _, gain in sorted(some)])
        for name, some in points.items()
    ]
    if lines:
        draw_lines(path, lines, ("rows that share a call", "rows a second, of one row's"))
