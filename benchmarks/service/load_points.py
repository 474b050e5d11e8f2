"""A service under load: closed loops of users, and an open loop at shares of capacity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.core.experiment import Case, Experiment, Session
from benchmarks.core.report import draw_lines
from benchmarks.core.rows import Row
from service.loadgen.loops import Load, Target, run_load
from service.loadgen.report import figures
from service.loadgen.workload import Trace

UNIFORM, MIXED = "4 steps at 512", "mixed"
_WARM_UP_S = 5.0


class LoadPoints(Experiment):
    """Loads of `seconds` each on one server, which `serve` starts.

    A case is a number of users in a closed loop, or a share of capacity in an open one. Capacity is
    `capacity_per_s`, or what the most users of a closed loop get of the mixed requests.
    """

    title = "under load"
    table = "load"
    key = ("loop", "trace", "users", "share")
    columns = (
        *key, "rate", "pictures_per_s", "goodput_per_s", "limit_ms", "p50_ms", "p95_ms", "p99_ms",
        "outside_engine_p50_ms", "answers",
    )  # fmt: skip

    def __init__(
        self,
        serve: Callable[[], AbstractContextManager[str]],
        conditions: Mapping[str, Any],
        *,
        users: Sequence[int],
        shares: Sequence[float],
        seconds: float,
        limit_ms: float,
        capacity_per_s: float = 0.0,
        key: str = "",
    ) -> None:
        super().__init__(conditions)
        self._serve, self._target = serve, Target("", key=key)
        self._users, self._shares = users, shares
        self._seconds, self._limit_ms, self._capacity_per_s = seconds, limit_ms, capacity_per_s

    def groups(self) -> Sequence[Sequence[Case]]:
        """Return capacity first, then overload and the other shares, then the uniform loops."""
        most = max(self._users)
        others = sorted(set(self._users) - {most})
        return [
            [
                closed_loop(MIXED, most),
                *(open_loop(share) for share in sorted(self._shares, reverse=True)),
                *(closed_loop(UNIFORM, users) for users in (most, *others)),
            ]
        ]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        with self._serve() as url:
            target = replace(self._target, url=url)
            warm_up = Load(users=1, seconds=min(_WARM_UP_S, self._seconds))
            asyncio.run(run_load(target, Trace(is_mixed=True).bodies(), warm_up))
            for case in session.each(cases, "loads"):
                share, users = case["share"], case["users"]
                rate = round(share * self.capacity(), 3) if share else None
                load = Load(users=users, rate=rate, seconds=self._seconds)
                trace = Trace(is_mixed=case["trace"] == MIXED)
                run = asyncio.run(run_load(target, trace.bodies(), load))
                yield {**case, "rate": rate or 0, **figures(run, self._limit_ms)}

    def capacity(self) -> float:
        """Return pictures a second. Raises LookupError if none were given or measured."""
        if self._capacity_per_s:
            return self._capacity_per_s
        mixed = [
            row for row in self.results.rows if (row["loop"], row["trace"]) == ("closed", MIXED)
        ]
        most = max(mixed, key=lambda row: int(row["users"]), default=None)
        if most is None or not float(most["pictures_per_s"]):
            raise LookupError("no capacity was measured: give --capacity, or measure a closed loop")
        return float(most["pictures_per_s"])

    def plot(self, rows: Sequence[Row], folder: Path) -> None:
        """Draw latencies over the share of capacity."""
        shown = sorted(
            (row for row in rows if row["loop"] == "open"), key=lambda row: float(row["share"])
        )
        shares = [float(row["share"]) for row in shown]
        lines = [
            (name, shares, [float(row[f"{name}_ms"]) for row in shown])
            for name in ("p50", "p95", "p99")
        ]
        if shown:
            draw_lines(folder / "load.png", lines, ("share of capacity", "ms"))


def closed_loop(trace: str, users: int) -> Case:
    return {"loop": "closed", "trace": trace, "users": users, "share": 0.0}


def open_loop(share: float) -> Case:
    return {"loop": "open", "trace": MIXED, "users": 0, "share": share}
