"""The ladder in one run: its rungs timed in turn, and a row for each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.flops import Work, count_work, request_floor_ms
from benchmarks.core.jobs import make_job
from benchmarks.core.roofline import Ceiling
from benchmarks.core.rows import Results, Row
from benchmarks.core.setup import Place
from benchmarks.core.timing import Call, take_turns
from benchmarks.engine.ladder import Rung, most_telling_first
from benchmarks.lanes.base import PartedLane
from service.bench.report import percentile

KEY = ("rung", "size", "steps")
COLUMNS = (
    *KEY, "p50_ms", "p95_ms", "unet_step_ms", "encode_ms", "decode_ms", "text_ms",
    "copy_ms", "codec_ms", "time_against_first", "floor_ms", "share_of_floor",
)  # fmt: skip
_PARTS = ("encode", "decode", "text", "copy", "codec")
_LOADING_SHARE = 0.6
"""Of the budget that loading and compiling lanes may take; what is not loaded then waits."""


class Workload(NamedTuple):
    """A lone request: the pixels of a side, and its steps."""

    size: int
    steps: int


@dataclass(frozen=True)
class Climb:
    """The rungs that are to be timed, and how."""

    place: Place
    rungs: Sequence[Rung]
    ceiling: Ceiling
    results: Results
    rounds: int
    warm_ups: int
    faults: dict[str, str] = field(default_factory=dict)  # by rung

    def left(self, workload: Workload) -> list[str]:
        """Return the names of the rungs that have no row yet."""
        names = [rung.name for rung in self.rungs]
        return [name for name in names if not self.results.is_done(rung=name, **workload._asdict())]

    def run(self, size: int, steps: Sequence[int], budget: Budget, progress: Progress) -> None:
        """Time the rungs in turn on pictures of `size` x `size` pixels, and keep their rows."""
        workloads = [Workload(size, number) for number in steps]
        wanted = {name for workload in workloads for name in self.left(workload)}
        if not wanted or budget.is_spent:
            return
        first = self.rungs[0].name
        chosen = [rung for rung in self.rungs if rung.name in wanted | {first}]
        lanes = self._load(chosen, size, budget.part(_LOADING_SHARE), progress)
        work = count_work(self.place, size, size)
        for workload in workloads:
            if set(self.left(workload)) & lanes.keys():
                self._time(lanes, workload, work, budget, progress)

    def _load(
        self, rungs: Sequence[Rung], size: int, budget: Budget, progress: Progress
    ) -> dict[str, PartedLane]:
        lanes: dict[str, PartedLane] = {}
        task = progress.add_task(f"loading at {size}", total=len(rungs))
        for rung in most_telling_first(rungs):
            if budget.is_spent:
                break
            try:
                lanes[rung.name] = rung.make(self.place, size)
            except RuntimeError as error:  # the other rungs are told nevertheless
                if not lanes or isinstance(error, torch.AcceleratorError):
                    raise
                self.faults[rung.name] = str(error)
            progress.advance(task)
        return lanes

    def _time(
        self,
        lanes: dict[str, PartedLane],
        workload: Workload,
        work: dict[str, Work],
        budget: Budget,
        progress: Progress,
    ) -> None:
        calls: dict[str, Call] = {}
        for name, lane in lanes.items():
            calls[f"{name}/run"] = _run_one(lane, workload)
            calls |= {f"{name}/{part}": call for part, call in lane.parts(workload.size).items()}
        task = progress.add_task("rounds at {}, {} steps".format(*workload), total=self.rounds)
        seen = take_turns(
            calls, rounds=self.rounds, warm_ups=self.warm_ups, budget=budget,
            synchronise=self.place.synchronise, on_round=lambda: progress.advance(task),
        )  # fmt: skip
        left = self.left(workload)
        for rung in self.rungs:
            if rung.name in lanes and rung.name in left:
                floor_ms = request_floor_ms(
                    work, self.ceiling, workload.steps, is_tiny=rung.is_tiny
                )
                self.results.add(self._row(rung, lanes[rung.name], workload, seen, floor_ms))

    def _row(
        self,
        rung: Rung,
        lane: PartedLane,
        workload: Workload,
        seen: dict[str, list[float]],
        floor_ms: float,
    ) -> Row:
        whole = seen[f"{rung.name}/run"]
        p50_ms = 1000 * statistics.median(whole)
        first_ms = 1000 * statistics.median(seen[f"{self.rungs[0].name}/run"])
        stages = {"unet_step": "unet"} | {part: part for part in _PARTS}
        times = {f"{name}_ms": seen.get(f"{rung.name}/{part}") for name, part in stages.items()}
        return {
            "rung": rung.name,
            "adds": rung.adds,
            **workload._asdict(),
            "p50_ms": round(p50_ms, 2),
            "p95_ms": round(1000 * percentile(whole, 0.95), 2),
            **{
                name: round(1000 * statistics.median(t), 3) if t else ""
                for name, t in times.items()
            },
            "time_against_first": round(p50_ms / first_ms, 3),
            "floor_ms": round(floor_ms, 3),
            "share_of_floor": round(floor_ms / p50_ms, 4),
            "unet_calls": lane.unet_calls,
            "rounds": len(whole),
            "ceiling_tflops": round(self.ceiling.tflops, 3),
            "ceiling_gb_per_s": round(self.ceiling.gb_per_s, 1),
        }


def _run_one(lane: PartedLane, workload: Workload) -> Call:
    job = make_job(3, size=workload.size, steps=workload.steps)
    return lambda: lane.run([job])
