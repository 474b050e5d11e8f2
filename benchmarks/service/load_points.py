"""A service under load, point by point: users who ask again, requests that come by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.rows import Results, Row
from service.bench.load import Load, Target, run_load
from service.bench.report import figures
from service.bench.trace import Trace

KEY = ("loop", "trace", "users", "share")
COLUMNS = (
    *KEY, "rate", "pictures_per_s", "goodput_per_s", "limit_ms", "p50_ms", "p95_ms", "p99_ms",
    "outside_engine_p50_ms", "answers",
)  # fmt: skip
_WARM_UP_S = 5.0
UNIFORM, MIXED = "4 steps at 512", "mixed"


@dataclass(frozen=True)
class Point:
    """A load: so many `users` in a closed loop, or a `share` of capacity in an open one."""

    trace: str
    users: int = 0
    share: float = 0.0

    @property
    def key(self) -> Row:
        return {
            "loop": "closed" if self.users else "open",
            "trace": self.trace,
            "users": self.users,
            "share": self.share,
        }

    def __str__(self) -> str:
        how = f"{self.users} users" if self.users else f"{self.share:.0%} of capacity"
        return f"{how}, {self.trace}"


def points(users: Sequence[int], shares: Sequence[float]) -> list[Point]:
    """Return the points of a run, the most telling first: what the capacity is, comes before all.

    Capacity is what the most users of a closed loop are served of the mixed trace.
    """
    most = max(users)
    rest = sorted(set(users) - {most}, reverse=True)
    return [
        Point(MIXED, users=most),
        *(Point(MIXED, share=share) for share in sorted(shares, key=lambda share: -share)),
        *(Point(UNIFORM, users=number) for number in (most, *rest[::-1])),
    ]


@dataclass(frozen=True)
class Loader:
    """Puts loads on a service, for `seconds` each, and keeps a row of each."""

    target: Target
    results: Results
    seconds: float
    limit_ms: float
    capacity_per_s: float = 0.0  # 0: what `points` says
    steps: int = 4

    def at(self, url: str) -> Loader:
        """Return the same for a server that is there now."""
        return replace(self, target=replace(self.target, url=url))

    def warm_up(self) -> None:
        """Let the server meet each shape and prompt once, unseen."""
        load = Load(users=1, seconds=min(_WARM_UP_S, self.seconds))
        asyncio.run(run_load(self.target, Trace(is_mixed=True, steps=self.steps).bodies(), load))

    def left(self, wanted: Sequence[Point]) -> list[Point]:
        """Return the points that have no row yet."""
        return [point for point in wanted if not self.results.is_done(**point.key)]

    def run(self, wanted: Sequence[Point], budget: Budget, progress: Progress) -> None:
        """Measure the points that have no row yet, until the budget is spent."""
        left = self.left(wanted)
        task = progress.add_task("loads", total=len(left))
        for point in left:
            if budget.is_spent:
                break
            progress.update(task, description=str(point))
            self.results.add(self._measure(point))
            progress.advance(task)

    def _measure(self, point: Point) -> Row:
        rate = None if point.users else round(point.share * self.capacity(), 3)
        load = Load(users=point.users, rate=rate, seconds=self.seconds)
        trace = Trace(is_mixed=point.trace == MIXED, steps=self.steps)
        run = asyncio.run(run_load(self.target, trace.bodies(), load))
        return {**point.key, "rate": rate or 0, **figures(run, self.limit_ms)}

    def capacity(self) -> float:
        """Return pictures a second that shares are of. Raises LookupError where none is known."""
        if self.capacity_per_s:
            return self.capacity_per_s
        closed = [row for row in self.results.rows if row["loop"] == "closed"]
        mixed = [row for row in closed if row["trace"] == MIXED]
        most = max(mixed, key=lambda row: int(row["users"]), default=None)
        if most is None or not float(most["pictures_per_s"]):
            raise LookupError("no capacity was measured yet, or no picture came")
        return float(most["pictures_per_s"])
