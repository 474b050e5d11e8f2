"""The ladder in one run: its rungs timed in turn, whole requests and each stage."""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.core.experiment import Case, Experiment, Session
from benchmarks.core.flops import request_floor_ms, stage_costs
from benchmarks.core.jobs import make_job
from benchmarks.core.report import draw_bars
from benchmarks.core.roofline import Roofline
from benchmarks.core.rows import Row
from benchmarks.core.setup import Setup
from benchmarks.core.timing import Call, interleave, timed
from benchmarks.engine.ladder import Rung, rungs_of
from benchmarks.lanes.base import StagedLane
from service.loadgen.report import percentile

_STAGES = {"unet_step_ms": "unet"} | {
    f"{stage}_ms": stage for stage in ("encode", "decode", "text", "copy", "codec")
}
_LOADING_SHARE = 0.6  # of the budget, for loading and compiling; other lanes wait for the next run


class LadderRun(Experiment):
    """Each rung on a single request of each size and number of steps."""

    title = "one request at a time"
    table = "engine"
    key = ("rung", "size", "steps")
    columns = (
        *key, "p50_ms", "p95_ms", *_STAGES, "time_vs_diffusers", "floor_ms", "share_of_floor",
    )  # fmt: skip

    def __init__(self, setup: Setup, roofline: Roofline, arguments: Namespace) -> None:
        super().__init__(setup.conditions())
        self._setup, self._roofline, self._arguments = setup, roofline, arguments
        self._rungs = rungs_of(setup, arguments.rungs)

    def groups(self) -> Sequence[Sequence[Case]]:
        return [
            [
                {"rung": rung.name, "size": size, "steps": steps}
                for steps in self._arguments.steps
                for rung in self._rungs
            ]
            for size in self._arguments.sizes
        ]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        size, base = cases[0]["size"], self._rungs[0]
        wanted = {base.name} | {case["rung"] for case in cases}
        lanes = self._load([rung for rung in self._rungs if rung.name in wanted], size, session)
        costs = stage_costs(self._setup, size, size)
        for steps in dict.fromkeys(case["steps"] for case in cases):
            seconds = self._time(lanes, size, steps, session)
            for rung in self._rungs:
                case = {"rung": rung.name, "size": size, "steps": steps}
                if rung.name in lanes and case in cases:
                    floor_ms = request_floor_ms(costs, self._roofline, steps, is_tiny=rung.is_tiny)
                    yield {
                        **case,
                        "adds": rung.adds,
                        **_times(seconds, rung.name, base.name, floor_ms),
                        "unet_calls": lanes[rung.name].unet_calls,
                        **self._roofline.columns(),
                    }

    def _load(self, rungs: Sequence[Rung], size: int, session: Session) -> dict[str, StagedLane]:
        """Load the first rung and then from the top: a cut run shows the sum of all techniques.

        A rung that cannot be compiled costs no other its row.
        """
        lanes: dict[str, StagedLane] = {}
        for rung in session.each([*rungs[:1], *rungs[:0:-1]], f"loading at {size}", _LOADING_SHARE):
            try:
                lanes[rung.name] = rung.make(self._setup, size)
            except RuntimeError as error:
                if not lanes or isinstance(error, torch.AcceleratorError):
                    raise
                self.faults[rung.name] = str(error)
        return lanes

    def _time(
        self, lanes: dict[str, StagedLane], size: int, steps: int, session: Session
    ) -> dict[tuple[str, str], list[float]]:
        """Return seconds by rung and stage; the stage "request" is the whole."""
        job = make_job(3, size=size, steps=steps)
        calls: dict[tuple[str, str], Callable[[], float]] = {}
        for name, lane in lanes.items():
            stages: dict[str, Call] = {"request": partial(lane.run, [job]), **lane.stages(size)}
            for stage, call in stages.items():
                calls[name, stage] = timed(call, self._setup.synchronise)
        return interleave(
            calls,
            session,
            rounds=self._arguments.rounds,
            warm_ups=self._arguments.warm_ups,
            title=f"rounds at {size}, {steps} steps",
        )

    def plot(self, rows: Sequence[Row], folder: Path) -> None:
        """Draw the rungs of the first size and number of steps, and the floor."""
        first = str(self._arguments.sizes[0]), str(self._arguments.steps[0])
        shown = [row for row in rows if (str(row["size"]), str(row["steps"])) == first]
        if shown:
            values = {str(row["rung"]): float(row["p50_ms"]) for row in shown}
            label = "ms a picture, {0} x {0}, {1} steps, one request at a time".format(*first)
            floor_ms = min(float(row["floor_ms"]) for row in shown)
            draw_bars(folder / "engine.png", values, label, floor_ms)


def _times(
    seconds: dict[tuple[str, str], list[float]], rung: str, base: str, floor_ms: float
) -> Row:
    whole = seconds[rung, "request"]
    p50_ms = 1000 * statistics.median(whole)
    base_ms = 1000 * statistics.median(seconds[base, "request"])
    return {
        "p50_ms": round(p50_ms, 2),
        "p95_ms": round(1000 * percentile(whole, 0.95), 2),
        **{
            column: round(1000 * statistics.median(seconds[rung, stage]), 3)
            for column, stage in _STAGES.items()
        },
        "time_vs_diffusers": round(p50_ms / base_ms, 3),
        "floor_ms": round(floor_ms, 3),
        "share_of_floor": round(floor_ms / p50_ms, 4),
        "rounds": len(whole),
    }
