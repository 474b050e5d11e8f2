"""What each technique costs in quality: PSNR of its pictures against fp32 eager diffusers.

    python -m benchmarks.engine.quality                                    pocket on this CPU
    python -m benchmarks.engine.quality --device cuda --checkpoint FOLDER

The same jobs (several prompts, strengths, steps, guidances and seeds) run through every rung of the
ladder, batched, padded to a larger bucket, and in other dtypes. With TAESD the reference has it,
too. The exit code is 1 if a picture is further from the reference than its dtype explains.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.core.experiment import Case, Experiment, Session, conduct
from benchmarks.core.jobs import varied_jobs
from benchmarks.core.report import draw_bars
from benchmarks.core.rows import Row
from benchmarks.core.setup import Setup, setup_of, setup_parser
from benchmarks.engine.ladder import Rung, rungs_of
from benchmarks.lanes.diffusers import DiffusersLane
from benchmarks.lanes.engine import EngineLane
from service.logs import configure_logging
from service.protocol.jobs import Job, Pixels

MIN_DB = {"float32": 48.0, "float16": 40.0, "bfloat16": 30.0}
"""The least PSNR of the worst picture. 48 dB is every value off by one of 255 levels; 16 bits round
at every step: `pocket` has 60 dB in float16 and 44 in bfloat16."""

_EQUAL_DB = 99.0  # of equal pictures
_MAX_BATCH = 8

Pictures = Mapping[str, Pixels]
"""Pictures by the id of their job."""


@dataclass(frozen=True)
class Way:
    """A way to make the pictures of jobs, in the dtype of its setup."""

    name: str
    setup: Setup
    make: Callable[[Sequence[Job]], Pictures]
    is_tiny: bool = False

    @property
    def dtype(self) -> str:
        return str(self.setup.dtype).removeprefix("torch.")


class Quality(Experiment):
    """Ways to make the same pictures, each against the reference."""

    title = "against fp32 eager diffusers"
    table = "quality"
    key = ("way", "dtype")
    columns = (*key, "worst_db", "mean_db", "min_db", "max_difference", "share_of_values_off",
               "passes")  # fmt: skip

    def __init__(self, ways: Sequence[Way], jobs: Sequence[Job]) -> None:
        setup = ways[0].setup
        size = jobs[0].params.height
        conditions = {"size": size, "jobs": len(jobs), **setup.conditions()}
        del conditions["dtype"]  # is part of the key
        super().__init__(conditions)
        self._ways = {(way.name, way.dtype): way for way in ways}
        self._jobs = jobs
        self._reference = cache(lambda is_tiny: reference(setup, jobs, is_tiny=is_tiny))

    def groups(self) -> Sequence[Sequence[Case]]:
        return [[{"way": name, "dtype": dtype} for name, dtype in self._ways]]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        for case in session.each(cases, "ways"):
            way = self._ways[case["way"], case["dtype"]]
            expected = self._reference(way.is_tiny)
            yield {**case, **compare(way.make(self._jobs), expected, MIN_DB[way.dtype])}

    def plot(self, rows: Sequence[Row], folder: Path) -> None:
        values = {f"{row['way']}, {row['dtype']}": float(row["worst_db"]) for row in rows}
        draw_bars(folder / "quality.png", values, "dB, PSNR of the worst picture")

    def judge(self, rows: Sequence[Row]) -> None:
        bad = [f"{row['way']}, {row['dtype']}" for row in rows if str(row["passes"]) != "True"]
        if bad:
            self.faults["quality"] = f"too far from the reference: {'; '.join(bad)}"


def ways_of(setup: Setup, size: int, dtypes: Sequence[str], names: Sequence[str]) -> list[Way]:
    """Return the rungs in the setup's dtype, batched and padded, and batched in other dtypes."""

    def one_by_one(rung: Rung) -> Way:
        def make(jobs: Sequence[Job]) -> Pictures:
            lane = rung.make(setup, size)
            return {job.id: lane.picture(job) for job in jobs}

        return Way(rung.name, setup, make, rung.is_tiny)

    def batched(setup: Setup) -> Way:
        def make(jobs: Sequence[Job]) -> Pictures:
            return EngineLane(
                setup, "batched", max_batch=_MAX_BATCH, size=size, is_compiled=setup.is_cuda
            ).pictures(jobs)

        return Way("batched", setup, make)

    def padded(jobs: Sequence[Job]) -> Pictures:
        """Run eager with one bucket: every step but the fullest has padding rows."""
        lane = EngineLane(setup, "padded", max_batch=_MAX_BATCH, size=size)
        lane.pipeline.buckets = (_MAX_BATCH,)
        pictures = lane.pictures(jobs)
        if not lane.padded_rows:
            raise RuntimeError("no call was padded, so nothing was shown")
        return pictures

    others = [replace(setup, dtype_name=dtype) for dtype in dtypes]
    return [
        *map(one_by_one, rungs_of(setup, names)),
        batched(setup),
        Way("padded", setup, padded),
        *(batched(other) for other in others if other.dtype != setup.dtype),
    ]


def reference(setup: Setup, jobs: Sequence[Job], *, is_tiny: bool) -> Pictures:
    """Return the pictures of eager diffusers in fp32, without TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    lane = DiffusersLane(replace(setup, dtype_name="float32"), is_tiny=is_tiny)
    return {job.id: lane.picture(job) for job in jobs}


def psnr_db(picture: Pixels, expected: Pixels) -> float:
    """Return the peak signal-to-noise ratio of uint8 pictures, `_EQUAL_DB` at most."""
    error = float(np.mean((picture.astype(float) - expected) ** 2))
    return min(_EQUAL_DB, 20 * math.log10(255) - 10 * math.log10(error)) if error else _EQUAL_DB


def compare(pictures: Pictures, expected: Pictures, min_db: float) -> Row:
    """Compare pictures with the reference's; `min_db` is what the worst must reach."""
    ratios = [psnr_db(pictures[job_id], expected[job_id]) for job_id in expected]
    off = [np.abs(pictures[job_id].astype(int) - expected[job_id]) for job_id in expected]
    return {
        "worst_db": round(min(ratios), 2),
        "mean_db": round(statistics.mean(ratios), 2),
        "min_db": min_db,
        "max_difference": max(int(one.max()) for one in off),
        "share_of_values_off": round(float(np.mean([np.mean(one > 0) for one in off])), 6),
        "passes": min(ratios) >= min_db,
    }


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = setup_parser(__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--rungs", nargs="+", default=[], help="names of rungs; default all")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float16"], help="also these")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    ways = ways_of(setup_of(arguments), arguments.size, arguments.dtypes, arguments.rungs)
    conduct([Quality(ways, varied_jobs(arguments.jobs, arguments.size))], arguments)


if __name__ == "__main__":
    configure_logging("console")
    main()
