"""The UNet step over the rows that share it: what batching gives, by the size of the picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from benchmarks.budget import Budget
from benchmarks.ceiling import Ceiling
from benchmarks.engine_lane import EngineLane
from benchmarks.place import Place
from benchmarks.rows import Results, Row
from benchmarks.telling import draw_lines
from benchmarks.timing import take_turns
from benchmarks.work import Work, count_work
from service.bench.report import percentile

COLUMNS = (
    "size", "batch", "step_ms", "p95_ms", "row_ms", "gain", "tflops", "share_of_floor",
)  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """Batches that are to be timed on the engine as it is served, and how."""

    place: Place
    ceiling: Ceiling
    results: Results
    rounds: int
    warm_ups: int

    def left(self, size: int, batches: Sequence[int]) -> list[int]:
        """Return the batches that have no row yet."""
        return [batch for batch in batches if not self.results.is_done(size=size, batch=batch)]

    def run(self, size: int, batches: Sequence[int], budget: Budget, progress: Progress) -> None:
        """Time steps of `size` x `size` pixels in turn, beside those of one row; keep the rows."""
        left = self.left(size, batches)
        if not left or budget.is_spent:
            return
        lane = self._lane(size, max(batches))
        calls = {str(batch): lane.forwards(size, batch)["denoise"] for batch in sorted({1, *left})}
        task = progress.add_task(f"batches at {size}", total=self.rounds)
        seen = take_turns(
            calls, rounds=self.rounds, warm_ups=self.warm_ups, budget=budget,
            synchronise=self.place.synchronise, on_round=lambda: progress.advance(task),
        )  # fmt: skip
        work = count_work(self.place, size, size)["unet"]
        for batch in left:
            self.results.add(self._row(size, batch, seen, work))

    def _lane(self, size: int, max_batch: int) -> EngineLane:
        """Load the engine as it is served by default: compiled and captured on CUDA alone."""
        is_cuda = self.place.is_cuda
        return EngineLane(self.place, "sweep", max_batch=max_batch, is_compiled=is_cuda, size=size)

    def _row(self, size: int, batch: int, seen: dict[str, list[float]], work: Work) -> Row:
        step_ms = 1000 * statistics.median(seen[str(batch)])
        alone_ms = 1000 * statistics.median(seen["1"])
        return {
            "size": size,
            "batch": batch,
            "step_ms": round(step_ms, 3),
            "p95_ms": round(1000 * percentile(seen[str(batch)], 0.95), 3),
            "row_ms": round(step_ms / batch, 3),
            "gain": round(alone_ms * batch / step_ms, 3),
            "tflops": round(batch * work.flops / step_ms / 1e9, 3),
            "share_of_floor": round(work.floor_ms(self.ceiling, batch) / step_ms, 4),
            "rounds": len(seen[str(batch)]),
            "ceiling_tflops": round(self.ceiling.tflops, 3),
            "ceiling_gb_per_s": round(self.ceiling.gb_per_s, 1),
        }


def draw_sweep(path: Path, rows: Sequence[Row]) -> None:
    """Draw the gain of each size over the rows that share a step."""
    by_size: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        by_size.setdefault(int(row["size"]), []).append((float(row["batch"]), float(row["gain"])))
    lines = [
        (f"{size} x {size}", *map(list, zip(*sorted(points), strict=True)))
        for size, points in sorted(by_size.items())
    ]
    if lines:
        draw_lines(path, lines, ("rows that share a UNet step", "rows a second, of one row's"))  # type: ignore[arg-type]
