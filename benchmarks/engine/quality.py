"""What each technique costs in quality: PSNR of its pictures against fp32 eager diffusers.

    python -m benchmarks.engine.quality  pocket on this machine's CPU
    python -m benchmarks.engine.quality --device cuda --checkpoint FOLDER

The same jobs (several prompts, strengths, steps, guidances and seeds) go through every rung of the
ladder, batched, padded to a larger bucket, and in other dtypes; with TAESD both sides have it. Rows
go to `results/quality.csv`. The exit code is 1 where a picture is further from the reference than
its dtype explains.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.jobs import varied_jobs
from benchmarks.core.report import draw_bars, print_json, print_table
from benchmarks.core.rows import Results, Row
from benchmarks.core.setup import Place, add_arguments, place_of
from benchmarks.engine.ladder import rungs_of
from benchmarks.lanes.base import DiffusersLane, Lane
from benchmarks.lanes.engine import EngineLane
from service.jobs import Job, Pixels
from service.logs import configure_logging

COLUMNS = (
    "way", "dtype", "worst_db", "mean_db", "least_db", "most_levels", "share_of_values_off",
    "passes",
)  # fmt: skip
LEAST_DB = {"float32": 48.0, "float16": 40.0, "bfloat16": 30.0}
"""What the worst picture must reach. 48 dB is every value off by one of 255 levels; 16 bits round
at each of the steps: `pocket` has 60 dB in float16 and 44 in bfloat16."""

_BEST_DB = 99.0  # of equal pictures
_MAX_BATCH = 8

Pictures = Mapping[str, Pixels]
"""Pictures by the id of their job."""


@dataclass(frozen=True)
class Way:
    """A way to make the pictures of jobs, in the dtype of its place."""

    name: str
    place: Place
    make: Callable[[Sequence[Job]], Pictures]
    is_tiny: bool = False


def ways_of(place: Place, size: int, dtypes: Sequence[str], names: Sequence[str]) -> list[Way]:
    """Return the rungs in the place's own dtype, what batching adds, and the other dtypes."""
    ways = [
        Way(rung.name, place, partial(_one_by_one, partial(rung.make, place, size)), rung.is_tiny)
        for rung in rungs_of(place, names)
    ]
    ways += [
        Way("batched", place, partial(_batched, place, size)),
        Way("padded", place, partial(_padded, place, size)),
    ]
    for dtype in dtypes:
        other = replace(place, dtype_name=dtype)
        if other.dtype != place.dtype:
            ways.append(Way("batched", other, partial(_batched, other, size)))
    return ways


def _one_by_one(make: Callable[[], Lane], jobs: Sequence[Job]) -> Pictures:
    lane = make()
    return {job.id: lane.picture(job) for job in jobs}


def _batched(place: Place, size: int, jobs: Sequence[Job]) -> Pictures:
    lane = EngineLane(place, "batched", max_batch=_MAX_BATCH, size=size, is_compiled=place.is_cuda)
    return lane.pictures(jobs)


def _padded(place: Place, size: int, jobs: Sequence[Job]) -> Pictures:
    """Eager, with one bucket: every step but the fullest carries rows that nobody asked for."""
    lane = EngineLane(place, "padded", max_batch=_MAX_BATCH, size=size)
    lane.pipeline.buckets = (_MAX_BATCH,)
    pictures = lane.pictures(jobs)
    if not lane.padded_rows:
        raise RuntimeError("no call was padded: nothing was shown")
    return pictures


def reference(place: Place, jobs: Sequence[Job], *, is_tiny: bool) -> Pictures:
    """Return what diffusers makes of the jobs in fp32, eager, and really in fp32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    lane = DiffusersLane(replace(place, dtype_name="float32"), is_tiny=is_tiny)
    return {job.id: lane.picture(job) for job in jobs}


def psnr_db(picture: Pixels, expected: Pixels) -> float:
    """Return the peak signal-to-noise ratio of uint8 pictures, `_BEST_DB` at most."""
    error = float(np.mean((picture.astype(float) - expected) ** 2))
    return min(_BEST_DB, 20 * math.log10(255) - 10 * math.log10(error)) if error else _BEST_DB


def judge(way: Way, made: Pictures, expected: Pictures) -> Row:
    """Hold pictures against the reference's, and against what the dtype may cost."""
    ratios = [psnr_db(made[job_id], expected[job_id]) for job_id in expected]
    apart = [np.abs(made[job_id].astype(int) - expected[job_id]) for job_id in expected]
    least_db = LEAST_DB[str(way.place.dtype).removeprefix("torch.")]
    return {
        "way": way.name,
        "worst_db": round(min(ratios), 2),
        "mean_db": round(statistics.mean(ratios), 2),
        "least_db": least_db,
        "most_levels": max(int(one.max()) for one in apart),
        "share_of_values_off": round(float(np.mean([np.mean(one > 0) for one in apart])), 6),
        "passes": min(ratios) >= least_db,
    }


def measure(
    ways: Sequence[Way], jobs: Sequence[Job], results: Mapping[str, Results], budget: Budget
) -> list[Way]:
    """Judge each way that has no row yet; return those that the budget did not suffice for."""
    left = [way for way in ways if not results[way.place.dtype_name].is_done(way=way.name)]
    expected: dict[bool, Pictures] = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("ways", total=len(left))
        while left and not budget.is_spent:
            way = left.pop(0)
            progress.update(task, description=f"{way.name}, {way.place.dtype_name}")
            if way.is_tiny not in expected:
                expected[way.is_tiny] = reference(way.place, jobs, is_tiny=way.is_tiny)
            row = judge(way, way.make(jobs), expected[way.is_tiny])
            results[way.place.dtype_name].add({**row, "jobs": len(jobs)})
            progress.advance(task)
    return left


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, budget_s=600)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--rungs", nargs="+", default=[], help="some of the ladder; else all")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float16"], help="others, too")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = _arguments(words)
    place, budget = place_of(arguments), Budget(arguments.budget)
    ways = ways_of(place, arguments.size, arguments.dtypes, arguments.rungs)
    jobs = varied_jobs(arguments.jobs, arguments.size)
    path, size = arguments.results / "quality.csv", {"size": arguments.size}
    results = {
        way.place.dtype_name: Results(
            path, ("way",), size | way.place.conditions(), anew=arguments.anew
        )
        for way in ways
    }
    left = measure(ways, jobs, results, budget)
    rows = [row for one in results.values() for row in one.rows]
    print_table("against fp32 eager diffusers", rows, COLUMNS)
    if rows:
        values = {f"{row['way']}, {row['dtype']}": float(row["worst_db"]) for row in rows}
        draw_bars(arguments.results / "quality.png", values, "dB, the worst picture's PSNR")
    print_json(
        [row for one in results.values() for row in one.added],
        [f"{way.name}, {way.place.dtype_name}" for way in left],
    )
    if bad := [f"{row['way']}, {row['dtype']}" for row in rows if str(row["passes"]) != "True"]:
        sys.exit(f"too far from the reference: {'; '.join(bad)}")


if __name__ == "__main__":
    configure_logging("console")
    main()
