"""The samples of a soak and their verdict: table, plot, JSON and rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.core.environment import environment
from benchmarks.core.report import print_table
from benchmarks.core.rows import append_row
from benchmarks.soak.slopes import NUM_BINS, Slope, bound_mb_per_hour, has_grown, slope

WARM_UP = 0.1  # of the seconds of a run
COUNTS = ("threads", "files", "tasks")
_BLOCK_MB = 100 / 2**20  # of an object, approximately


@dataclass(frozen=True)
class Sample:
    """A process at a moment of the run. The tasks of an engine are its jobs.

    `num_blocks` counts the objects of its Python. Python takes memory by the megabyte and fills
    free places first, so a leak of objects shows here long before it shows in `rss_mb`.
    """

    time_s: float
    rss_mb: float
    num_blocks: int
    num_threads: int
    num_files: int
    num_tasks: int


@dataclass(frozen=True)
class Verdict:
    """A process between its warm-up and its last sample."""

    process: str
    samples: Sequence[Sample]
    bound: float

    @cached_property
    def slopes(self) -> dict[str, Slope]:
        """Return the slopes of memory and of objects, both in MB an hour."""
        times = [one.time_s for one in self.samples]
        return {
            "memory": slope(times, [one.rss_mb for one in self.samples]),
            "objects": slope(times, [_BLOCK_MB * one.num_blocks for one in self.samples]),
        }

    @property
    def failures(self) -> list[str]:
        """Return what grew: slopes above the bound, and counts that never came down."""
        steep = [name for name, one in self.slopes.items() if one.per_hour > self.bound]
        grown = [
            name
            for name in COUNTS
            if has_grown([getattr(one, f"num_{name}") for one in self.samples])
        ]
        return [f"{self.process}: {name} grew" for name in (*steep, *grown)]

    def row(self) -> dict[str, Any]:
        ends = {"first": self.samples[0], "last": self.samples[-1]}
        slopes = self.slopes
        return {
            "process": self.process,
            **{
                f"{name}_{end}": round(getattr(sample, name), 1)
                for name in ("rss_mb", *(f"num_{count}" for count in COUNTS))
                for end, sample in ends.items()
            },
            **{
                f"{name}_mb_{end}": round(value, 2)
                for name, one in slopes.items()
                for end, value in asdict(one).items()
            },
            "bound": round(self.bound, 2),
            **{name: one.verdict(self.bound) for name, one in slopes.items()},
        }


@dataclass
class Report:
    """A run of `seconds`: samples by process, answers, and other failures."""

    seconds: float
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    conditions: dict[str, str | int] = field(default_factory=environment)  # of its beginning

    @property
    def seen_s(self) -> float:
        """How long it was sampled: less than `seconds` if it was cut."""
        return max((one.time_s for many in self.samples.values() for one in many), default=0.0)

    def verdicts(self) -> list[Verdict]:
        """Judge each process. Raises ValueError if the run ended within its warm-up."""
        if not self.samples:
            raise ValueError("there are no samples")
        bound = bound_mb_per_hour(self.seen_s)
        return [
            Verdict(name, [one for one in many if one.time_s >= WARM_UP * self.seconds], bound)
            for name, many in self.samples.items()
        ]

    def all_failures(self) -> list[str]:
        return [*self.failures, *(failure for one in self.verdicts() for failure in one.failures)]


def bin_s(seconds: float) -> float:
    """Return how long a bin of a run's slopes is. Each has its least value in the slope."""
    return (1 - WARM_UP) * seconds / NUM_BINS


def read_samples(lines: Iterable[str]) -> dict[str, list[Sample]]:
    """Read the samples that a run wrote, complete or not."""
    samples: dict[str, list[Sample]] = {}
    for line in lines:
        fields = json.loads(line)
        samples.setdefault(fields.pop("process"), []).append(Sample(**fields))
    return samples


def publish(report: Report, out: Path, results: Path | None = None) -> None:
    """Draw the plot, print the table and the line of JSON, and append rows to `results`."""
    rows, failures = [one.row() for one in report.verdicts()], report.all_failures()
    _draw(report, out / "soak.png")
    print_table("soak", rows, list(rows[0]))
    seen = {"seconds": round(report.seen_s), "pictures": report.answers.get("good 200", 0)}
    if results is not None:
        for row in rows:
            kept = {**row, **seen, "failures": "; ".join(failures), **report.conditions}
            append_row(results, kept)
    summary = {
        "seconds": seen["seconds"],
        "processes": rows,
        "answers": report.answers,
        "failures": failures,
        **report.conditions,
    }
    print(json.dumps(summary))
    (out / "soak.json").write_text(json.dumps(summary, indent=1))


def _draw(report: Report, path: Path) -> None:
    """Plot each process's memory over minutes, its warm-up in grey."""
    figure = Figure(figsize=(7, 4), dpi=80, layout="constrained")
    panels = figure.subplots(len(report.samples), sharex=True, squeeze=False)[:, 0]
    for axes, (name, samples) in zip(panels, report.samples.items(), strict=True):
        axes.plot([one.time_s / 60 for one in samples], [one.rss_mb for one in samples])
        axes.axvspan(0, WARM_UP * report.seconds / 60, color="0.9")
        axes.set_ylabel(f"{name}, MB")
    axes.set_xlabel("minutes")
    figure.savefig(path)
