"""UNet, encoder and decoder over the rows that share a call: what batching gives, by size."""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.core.experiment import Case, Experiment, Session
from benchmarks.core.flops import stage_costs
from benchmarks.core.report import draw_lines
from benchmarks.core.roofline import Roofline
from benchmarks.core.rows import Row
from benchmarks.core.setup import Setup
from benchmarks.core.timing import interleave, timed
from benchmarks.lanes.engine import EngineLane
from service.engine.scheduler import MAX_ADMISSIONS, MAX_RETIREMENTS
from service.loadgen.report import percentile

_MAX_ROWS = {"unet": None, "encode": MAX_ADMISSIONS, "decode": MAX_RETIREMENTS}
"""The most rows that the engine gives to a call of a stage; the UNet has no limit here."""


class BatchSweep(Experiment):
    """Calls of each stage with some rows, timed in turn with calls of one row."""

    title = "rows that share a call"
    table = "batch"
    key = ("stage", "size", "batch")
    columns = (*key, "call_ms", "p95_ms", "row_ms", "gain", "tflops", "share_of_floor")

    def __init__(self, setup: Setup, roofline: Roofline, arguments: Namespace) -> None:
        super().__init__(setup.conditions())
        self._setup, self._roofline, self._arguments = setup, roofline, arguments

    def groups(self) -> Sequence[Sequence[Case]]:
        return [
            [
                {"stage": stage, "size": size, "batch": rows}
                for stage, most in _MAX_ROWS.items()
                for rows in self._arguments.batches
                if most is None or rows <= most
            ]
            for size in self._arguments.sizes
        ]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        """Use the engine as it is served by default: compiled and captured on CUDA only."""
        setup, size = self._setup, cases[0]["size"]
        most = max(self._arguments.batches)
        lane = EngineLane(
            setup, "sweep", max_batch=most, is_compiled=setup.is_cuda, size=size
        )  # fmt: skip
        batches = [(case["stage"], case["batch"]) for case in cases]
        seconds = interleave(
            {
                (stage, rows): timed(lane.stages(size, rows)[stage], setup.synchronise)
                for stage, rows in dict.fromkeys([*((stage, 1) for stage, _ in batches), *batches])
            },
            session,
            rounds=self._arguments.rounds,
            warm_ups=self._arguments.warm_ups,
            title=f"batches at {size}",
        )
        costs = stage_costs(setup, size, size)
        for case, (stage, rows) in zip(cases, batches, strict=True):
            seen = seconds[stage, rows]
            call_ms = 1000 * statistics.median(seen)
            alone_ms = 1000 * statistics.median(seconds[stage, 1])
            floor_ms = costs[stage].floor_ms(self._roofline, rows)
            yield {
                **case,
                "call_ms": round(call_ms, 3),
                "p95_ms": round(1000 * percentile(seen, 0.95), 3),
                "row_ms": round(call_ms / rows, 3),
                "gain": round(alone_ms * rows / call_ms, 3),
                "tflops": round(rows * costs[stage].flops / call_ms / 1e9, 3),
                "share_of_floor": round(floor_ms / call_ms, 4),
                "rounds": len(seen),
                **self._roofline.columns(),
            }

    def plot(self, rows: Sequence[Row], folder: Path) -> None:
        """Draw the gain of each stage and size over the rows that share a call."""
        points: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            name = f"{row['stage']}, {row['size']} x {row['size']}"
            points.setdefault(name, []).append((float(row["batch"]), float(row["gain"])))
        lines = [
            (name, [rows for rows, _ in sorted(some)], [gain for _, gain in sorted(some)])
            for name, some in points.items()
        ]
        draw_lines(folder / "batch.png", lines, ("rows that share a call", "throughput gain"))
