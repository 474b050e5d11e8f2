"""What a soak saw: samples of each process, judged, told, drawn and kept as rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.core.environment import conditions
from benchmarks.core.rows import append_row
from benchmarks.soak.slopes import NUM_BINS, Slope, bound_mb_per_hour, has_grown, slope

WARM_UP = 0.1
COUNTS = ("threads", "files", "tasks")
BLOCK_MB = 100 / 2**20
"""What an object takes, more or less."""


@dataclass(frozen=True)
class Sample:
    """A process at a moment of the run; an engine's tasks are the jobs that it has.

    `num_blocks` are the objects of its Python. They take memory by the megabyte, and what is free
    in these is filled first, so that a leak of them shows here long before it does in `rss_mb`.
    """

    time_s: float
    rss_mb: float
    num_blocks: int
    num_threads: int
    num_files: int
    num_tasks: int


@dataclass(frozen=True)
class Judgement:
    """A process between its warm-up and its last sample; counts are the first and the last."""

    process: str
    rss_mb: tuple[float, float]
    fits: dict[str, Slope]  # of memory and of objects, both in MB
    bound: float
    counts: dict[str, tuple[int, int]]
    grown: tuple[str, ...]  # of the counts

    @property
    def failures(self) -> list[str]:
        """Tell what grew: what has a slope does where it, as it was found, is above the bound."""
        steep = [name for name, fit in self.fits.items() if fit.per_hour > self.bound]
        return [f"{self.process}: {name} grew" for name in (*steep, *self.grown)]

    def row(self) -> dict[str, Any]:
        pairs = {"rss_mb": self.rss_mb, **{f"num_{name}": self.counts[name] for name in COUNTS}}
        fits = self.fits.items()
        return {
            "process": self.process,
            **{
                f"{name}_{end}": value
                for name, pair in pairs.items()
                for end, value in zip(("first", "last"), pair, strict=True)
            },
            **{
                f"{name}_mb_{end}": round(value, 2)
                for name, fit in fits
                for end, value in asdict(fit).items()
            },
            "bound": round(self.bound, 2),
            **{name: fit.verdict(self.bound) for name, fit in fits},
        }


@dataclass
class Report:
    """What a run of `seconds` showed: samples by process, answers, and what else went wrong."""

    seconds: float
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    conditions: dict[str, str | int] = field(default_factory=conditions)  # of its beginning

    @property
    def seen_s(self) -> float:
        """How long it was watched: less than `seconds` where it was cut."""
        return max((one.time_s for many in self.samples.values() for one in many), default=0.0)

    def judgements(self) -> list[Judgement]:
        """Judge each process. Raises ValueError for a run that ended within its warm-up."""
        if not self.samples:
            raise ValueError("nothing was seen")
        return [_judge(name, self._settled(name), self.seen_s) for name in self.samples]

    def all_failures(self) -> list[str]:
        return [*self.failures, *(told for one in self.judgements() for told in one.failures)]

    def _settled(self, name: str) -> list[Sample]:
        return [one for one in self.samples[name] if one.time_s >= WARM_UP * self.seconds]


def _judge(name: str, samples: Sequence[Sample], seen_s: float) -> Judgement:
    times = [one.time_s for one in samples]
    fits = {
        "memory": slope(times, [one.rss_mb for one in samples]),
        "objects": slope(times, [BLOCK_MB * one.num_blocks for one in samples]),
    }
    counts = {which: [getattr(one, f"num_{which}") for one in samples] for which in COUNTS}
    return Judgement(
        name,
        (round(samples[0].rss_mb, 1), round(samples[-1].rss_mb, 1)),
        fits,
        bound_mb_per_hour(seen_s),
        {which: (values[0], values[-1]) for which, values in counts.items()},
        tuple(which for which, values in counts.items() if has_grown(values)),
    )


def bin_s(seconds: float) -> float:
    """Return how long a bin of the slopes of a run is, of which each has its least value."""
    return (1 - WARM_UP) * seconds / NUM_BINS


def read_samples(lines: Iterable[str]) -> dict[str, list[Sample]]:
    """Read the rows that a run wrote while it went on, whatever became of it."""
    samples: dict[str, list[Sample]] = {}
    for line in lines:
        fields = json.loads(line)
        samples.setdefault(fields.pop("process"), []).append(Sample(**fields))
    return samples


def tell(report: Report, out: Path, results: Path | None = None) -> None:
    """Draw the plot; print the table and the line of JSON; add rows to a table of results."""
    judgements = report.judgements()
    draw(report, out / "soak.png")
    table = Table("process", "RSS MB", "memory MB/h (95 %)", "objects MB/h", "bound", *COUNTS)
    for one in judgements:
        table.add_row(*_cells(one))
    Console(stderr=True).print(table)
    told = {
        "seconds": round(report.seen_s),
        "processes": [one.row() for one in judgements],
        "answers": report.answers,
        "failures": report.all_failures(),
        **report.conditions,
    }
    print(json.dumps(told))
    (out / "soak.json").write_text(json.dumps(told, indent=1))
    if results is not None:
        _keep(report, results)


def _keep(report: Report, results: Path) -> None:
    seen = {"seconds": round(report.seen_s), "pictures": report.answers.get("good 200", 0)}
    failures = "; ".join(report.all_failures())
    for one in report.judgements():
        append_row(results, {**one.row(), **seen, "failures": failures, **report.conditions})


def _cells(one: Judgement) -> list[str]:
    return [
        one.process,
        "{} to {}".format(*one.rss_mb),
        *(
            f"{fit.per_hour:.2f} ({fit.low:.2f} to {fit.high:.2f}) {fit.verdict(one.bound)}"
            for fit in one.fits.values()
        ),
        f"{one.bound:.2f}",
        *("{} to {}".format(*one.counts[name]) for name in COUNTS),
    ]


def draw(report: Report, path: Path) -> None:
    """Plot each process's memory over minutes, its warm-up in grey."""
    figure = Figure(figsize=(7, 4), dpi=80, layout="constrained")
    panels = figure.subplots(len(report.samples), sharex=True, squeeze=False)[:, 0]
    for axes, (name, samples) in zip(panels, report.samples.items(), strict=True):
        axes.plot([one.time_s / 60 for one in samples], [one.rss_mb for one in samples])
        axes.axvspan(0, WARM_UP * report.seconds / 60, color="0.9")
        axes.set_ylabel(f"{name}, MB")
    axes.set_xlabel("minutes")
    figure.savefig(path)
