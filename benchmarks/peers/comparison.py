"""Lanes timed in turn: a single request, many users at once, and one user's stream."""

from __future__ import annotations

import statistics
from abc import abstractmethod
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from benchmarks.core.experiment import Case, Experiment, Session
from benchmarks.core.jobs import make_job, mixed_jobs, stream_jobs
from benchmarks.core.report import draw_bars
from benchmarks.core.rows import Row
from benchmarks.core.timing import interleave
from benchmarks.lanes.base import Lane, StreamingLane
from benchmarks.lanes.registry import (
    DIFFUSERS_COMPILED,
    DIFFUSERS_EAGER,
    REQUEST_LANES,
    STREAM_DIFFUSION,
    STREAM_LANES,
    LaneFactory,
    LaneSpec,
    select,
)
from benchmarks.peers.verification import load_verified
from service.loadgen.report import percentile
from service.protocol.jobs import Job


@dataclass(frozen=True)
class Sample:
    """One call of a lane: seconds of each picture, pictures a second, and its UNet calls."""

    latencies_s: list[float]
    pictures_per_s: float
    unet_calls: int = 0
    unet_rows: int = 0


class Seen:
    """The samples of one lane."""

    def __init__(self, single: Sequence[Sample], many: Sequence[Sample]) -> None:
        self.single_s = [sample.latencies_s[0] for sample in single]
        self.single_ms = 1000 * statistics.median(self.single_s)
        self.many_s = [second for sample in many for second in sample.latencies_s]
        self.pictures_per_s = statistics.median(sample.pictures_per_s for sample in many)
        self.last, self.rounds = many[-1], len(many)

    def many_ms(self, share: float) -> float:
        return round(1000 * percentile(self.many_s, share), 1)


class Comparison(Experiment):
    """Lanes side by side. The first lane is the base of the ratios and runs in every comparison."""

    key = ("lane",)

    def __init__(
        self, factory: LaneFactory, lanes: Sequence[LaneSpec], arguments: Namespace, **also: object
    ) -> None:
        setup = factory.setup
        described = {
            "steps": arguments.steps,
            "size": factory.size,
            "max_batch": factory.max_batch,
            "is_compiled": factory.is_compiled,
        }
        super().__init__({**also, **described, **setup.conditions()})
        self.arguments = arguments
        self._factory = factory
        self._specs = select(lanes, factory, arguments.lanes)

    def groups(self) -> Sequence[Sequence[Case]]:
        return [[{"lane": spec.name} for spec in self._specs]]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        base, *others = self._specs
        specs = [base, *(spec for spec in others if {"lane": spec.name} in cases)]
        arguments, size = self.arguments, self._factory.size
        probe = make_job(7, size=size, steps=arguments.steps)
        lanes, faults = load_verified(specs, self._factory, probe, session)
        self.faults.update(faults)
        job = make_job(3, size=size, steps=arguments.steps)
        samples = interleave(
            {(name, "single"): partial(run_jobs, lane, [job]) for name, lane in lanes.items()}
            | {(name, "many"): partial(self.run_many, lane) for name, lane in lanes.items()},
            session,
            rounds=arguments.rounds,
            warm_ups=arguments.warm_ups,
        )
        seen = {name: Seen(samples[name, "single"], samples[name, "many"]) for name in lanes}
        for spec in specs:
            if spec.name in lanes and {"lane": spec.name} in cases:
                one = seen[spec.name]
                yield {
                    "lane": spec.name,
                    "description": spec.description,
                    "single_p50_ms": round(one.single_ms, 2),
                    "single_p95_ms": round(1000 * percentile(one.single_s, 0.95), 2),
                    "rounds": one.rounds,
                    **self.row(one, seen),
                }

    @abstractmethod
    def run_many(self, lane: Lane) -> Sample:
        """Run the pictures whose rate is measured."""

    @abstractmethod
    def row(self, one: Seen, seen: dict[str, Seen]) -> Row:
        """Return the columns of this comparison."""


class ConcurrentRequests(Comparison):
    """A single request, and mixed requests of many users at once."""

    title = "a single request, and many users at once"
    table = "peers"
    columns = (
        "lane", "single_p50_ms", "single_p95_ms", "time_vs_diffusers_eager",
        "concurrent_p50_ms", "concurrent_p99_ms", "pictures_per_s", "rate_vs_diffusers_eager",
        "rate_vs_diffusers_compiled", "unet_calls", "unet_rows",
    )  # fmt: skip

    def __init__(self, factory: LaneFactory, arguments: Namespace) -> None:
        super().__init__(factory, REQUEST_LANES, arguments, users=arguments.users)

    def run_many(self, lane: Lane) -> Sample:
        return run_jobs(lane, mixed_jobs(self.arguments.users, self.arguments.size))

    def row(self, one: Seen, seen: dict[str, Seen]) -> Row:
        eager, compiled = seen[DIFFUSERS_EAGER], seen.get(DIFFUSERS_COMPILED)
        return {
            "time_vs_diffusers_eager": round(one.single_ms / eager.single_ms, 3),
            "concurrent_p50_ms": one.many_ms(0.5),
            "concurrent_p99_ms": one.many_ms(0.99),
            "pictures_per_s": round(one.pictures_per_s, 3),
            "rate_vs_diffusers_eager": round(one.pictures_per_s / eager.pictures_per_s, 3),
            "rate_vs_diffusers_compiled": (
                round(one.pictures_per_s / compiled.pictures_per_s, 3) if compiled else ""
            ),
            "unet_calls": one.last.unet_calls,
            "unet_rows": one.last.unet_rows,
        }

    def plot(self, rows: Sequence[Row], folder: Path) -> None:
        values = {str(row["lane"]): float(row["pictures_per_s"]) for row in rows}
        label = f"pictures a second, {self.arguments.users} users at once"
        draw_bars(folder / "peers.png", values, label)


class UserStream(Comparison):
    """A single picture, and frames of one user, as many in flight as there are steps."""

    title = "one user's stream"
    table = "stream"
    columns = (
        "lane", "single_p50_ms", "single_p95_ms", "frames_per_s", "frame_p50_ms",
        "frame_p99_ms", "time_vs_stream_diffusion", "rate_vs_stream_diffusion",
    )  # fmt: skip

    def __init__(self, factory: LaneFactory, arguments: Namespace) -> None:
        super().__init__(factory, STREAM_LANES, arguments)

    def run_many(self, lane: Lane) -> Sample:
        arguments = self.arguments
        frames = stream_jobs(arguments.frames, arguments.size, arguments.steps)
        seconds, latencies = cast("StreamingLane", lane).stream(frames, arguments.steps)
        return Sample(latencies, len(latencies) / seconds)

    def row(self, one: Seen, seen: dict[str, Seen]) -> Row:
        base = seen[STREAM_DIFFUSION]
        return {
            "frames_per_s": round(one.pictures_per_s, 3),
            "frame_p50_ms": one.many_ms(0.5),
            "frame_p99_ms": one.many_ms(0.99),
            "time_vs_stream_diffusion": round(one.single_ms / base.single_ms, 3),
            "rate_vs_stream_diffusion": round(one.pictures_per_s / base.pictures_per_s, 3),
        }


def run_jobs(lane: Lane, jobs: Sequence[Job]) -> Sample:
    """Run jobs at once."""
    seconds = lane.run(jobs)
    return Sample(seconds, len(seconds) / max(seconds), lane.unet_calls, lane.unet_rows)
