"""Lanes timed in turn; a row for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.jobs import make_job, mixed_jobs, stream_jobs
from benchmarks.core.rows import Results, Row
from benchmarks.core.timing import Call, take_turns
from benchmarks.lanes.base import Lane
from benchmarks.lanes.registry import Contender, Team
from benchmarks.peers.verification import enter
from service.bench.report import percentile
from service.jobs import Job

CROWD_COLUMNS = (
    "lane", "what", "lone_p50_ms", "lone_p95_ms", "time_against_a", "crowd_p50_ms", "crowd_p99_ms",
    "pictures_per_s", "rate_against_a", "rate_against_b", "unet_calls", "unet_rows",
)  # fmt: skip
STREAM_COLUMNS = (
    "lane", "what", "lone_p50_ms", "lone_p95_ms", "frames_per_s", "frame_p50_ms", "frame_p99_ms",
    "time_against_c", "rate_against_c",
)  # fmt: skip

_LOADING_SHARE = 0.6


class Streaming(Lane, Protocol):
    """A lane that takes frames of one user, each on its way while others are."""

    def stream(self, frames: Sequence[Job], in_flight: int) -> tuple[float, list[float]]: ...


@dataclass
class Times:
    """Seconds of a lane: of lone requests; of each in a crowd, and of the last; a second's rate."""

    lone_s: list[float] = field(default_factory=list)
    each_s: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    unet_calls: int = 0
    unet_rows: int = 0

    def forget(self) -> None:
        """Drop what warm-ups have left."""
        for seconds in (self.lone_s, self.each_s, self.rates):
            seconds.clear()

    @property
    def lone_ms(self) -> float:
        return 1000 * statistics.median(self.lone_s)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


MakeRows = Callable[[Sequence[Contender], dict[str, Times]], list[Row]]


@dataclass(frozen=True)
class Race:
    """What the lanes are given, and how often."""

    team: Team
    steps: int
    users: int
    frames: int
    rounds: int
    warm_ups: int
    faults: dict[str, str] = field(default_factory=dict)  # by the letter of a lane

    def run(
        self,
        contenders: Sequence[Contender],
        results: Results,
        budget: Budget,
        progress: Progress,
        to_rows: MakeRows,
    ) -> None:
        """Time who has no row yet, beside the first; keep the rows, and who may not have one."""
        left = {one.letter for one in contenders if not results.is_done(lane=one.letter)}
        if not left or budget.is_spent:
            return
        wanted = [one for one in contenders if one.letter in left or one is contenders[0]]
        loading = budget.part(_LOADING_SHARE)
        lanes, faults = enter(wanted, self.team, self._probe(), loading, progress)
        self.faults.update(faults)
        is_stream = to_rows is stream_rows
        times = self._time(lanes, budget, progress, is_stream=is_stream)
        for row in to_rows([one for one in wanted if one.letter in times], times):
            if row["lane"] in left:
                results.add(row)

    def _probe(self) -> Job:
        return make_job(7, size=self.team.size, steps=self.steps)

    def _time(
        self, lanes: dict[str, Lane], budget: Budget, progress: Progress, *, is_stream: bool
    ) -> dict[str, Times]:
        times = {letter: Times() for letter in lanes}
        calls: dict[str, Call] = {}
        for letter, lane in lanes.items():
            calls[f"{letter}, alone"] = self._alone(lane, times[letter])
        for letter, lane in lanes.items():
            together = self._stream if is_stream else self._crowd
            calls[f"{letter}, together"] = together(lane, times[letter])
        task = progress.add_task("rounds", total=self.rounds)
        for call in [*calls.values()] * self.warm_ups:
            call()
        for one in times.values():
            one.forget()
        take_turns(
            calls, rounds=self.rounds, warm_ups=0, budget=budget,
            synchronise=self.team.place.synchronise, on_round=lambda: progress.advance(task),
        )  # fmt: skip
        return times

    def _alone(self, lane: Lane, times: Times) -> Call:
        job = make_job(3, size=self.team.size, steps=self.steps)

        def call() -> None:
            times.lone_s += lane.run([job])

        return call

    def _crowd(self, lane: Lane, times: Times) -> Call:
        jobs = mixed_jobs(self.users, self.team.size)

        def call() -> None:
            seconds = lane.run(jobs)
            times.each_s += seconds
            times.rates.append(len(seconds) / max(seconds))
            times.unet_calls, times.unet_rows = lane.unet_calls, lane.unet_rows

        return call

    def _stream(self, lane: Lane, times: Times) -> Call:
        frames = stream_jobs(self.frames, self.team.size, self.steps)

        def call() -> None:
            seconds, latencies = cast("Streaming", lane).stream(frames, self.steps)
            times.each_s += latencies
            times.rates.append(len(latencies) / seconds)

        return call


def crowd_rows(contenders: Sequence[Contender], times: dict[str, Times]) -> list[Row]:
    first, tuned = times["A"], times.get("B")
    return [
        {
            **_lone_row(one, times[one.letter]),
            "time_against_a": round(times[one.letter].lone_ms / first.lone_ms, 3),
            "crowd_p50_ms": round(1000 * statistics.median(times[one.letter].each_s), 1),
            "crowd_p99_ms": round(1000 * percentile(times[one.letter].each_s, 0.99), 1),
            "pictures_per_s": round(times[one.letter].rate, 3),
            "rate_against_a": round(times[one.letter].rate / first.rate, 3),
            "rate_against_b": round(times[one.letter].rate / tuned.rate, 3) if tuned else "",
            "unet_calls": times[one.letter].unet_calls,
            "unet_rows": times[one.letter].unet_rows,
        }
        for one in contenders
    ]


def stream_rows(contenders: Sequence[Contender], times: dict[str, Times]) -> list[Row]:
    first = times["C"]
    return [
        {
            **_lone_row(one, times[one.letter]),
            "frames_per_s": round(times[one.letter].rate, 3),
            "frame_p50_ms": round(1000 * statistics.median(times[one.letter].each_s), 1),
            "frame_p99_ms": round(1000 * percentile(times[one.letter].each_s, 0.99), 1),
            "time_against_c": round(times[one.letter].lone_ms / first.lone_ms, 3),
            "rate_against_c": round(times[one.letter].rate / first.rate, 3),
        }
        for one in contenders
    ]


def _lone_row(one: Contender, times: Times) -> Row:
    return {
        "lane": one.letter,
        "what": one.what,
        "lone_p50_ms": round(times.lone_ms, 2),
        "lone_p95_ms": round(1000 * percentile(times.lone_s, 0.95), 2),
        "rounds": len(times.rates),
    }
