"""How long a start takes: to ready, and to the first picture, with and without compiled code."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from rich.progress import Progress

from benchmarks.core.budget import Budget
from benchmarks.core.rows import Results, Row
from benchmarks.service.served import Served, served
from service.bench.load import Target
from service.bench.trace import Trace

KEY = ("start",)
COLUMNS = ("start", "ready_s", "first_picture_s", "second_picture_s")
_COMPILES_WITHIN_S = 3600.0


@dataclass(frozen=True)
class Start:
    """A start by its name, with the engine's `compile`; `is_restored` finds what one has made."""

    name: str
    compile: str = "off"
    is_restored: bool = False


EAGER = (Start("eager"),)
COMPILED = (
    Start("background, cache empty", "background"),
    Start("full, cache empty", "full"),
    Start("full, cache restored", "full", is_restored=True),
)


def left_of(starts: Sequence[Start], results: Results) -> list[Start]:
    """Return the starts that have no row yet."""
    return [start for start in starts if not results.is_done(start=start.name)]


def measure_starts(
    starts: Sequence[Start],
    settings: Mapping[str, str],
    results: Results,
    budget: Budget,
    progress: Progress,
) -> None:
    """Start the service in each way that has no row yet, until the budget is spent.

    A restored cache is that which the start before it in this run has filled, else one is filled
    for it first. The files of checkpoint and libraries are in the machine's memory, mostly.
    """
    left = left_of(starts, results)
    task = progress.add_task("starts", total=len(left))
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        for number, start in enumerate(left):
            if budget.is_spent:
                break
            progress.update(task, description=start.name)
            cache = kept if start.compile == "full" else Path(folder) / str(number)
            if start.is_restored and not kept.exists():
                _start(start, settings, kept)
            results.add({"start": start.name, **_start(start, settings, cache)})
            progress.advance(task)


def _start(start: Start, settings: Mapping[str, str], cache: Path) -> Row:
    ours = {"REFINE_COMPILE": start.compile, "REFINE_CACHE_DIR": str(cache)}
    with served({**settings, **ours}, ready_within_s=_COMPILES_WITHIN_S) as service:
        first_s, second_s = asyncio.run(_first_pictures(service))
        return {
            "ready_s": round(service.ready_s, 2),
            "first_picture_s": round(service.ready_s + first_s, 2),
            "second_picture_s": round(second_s, 3),
        }


async def _first_pictures(service: Served) -> tuple[float, float]:
    """Return the seconds of the first two requests. Raises SystemExit for a refusal."""
    target, bodies, seconds = Target(service.url), Trace().bodies(), []
    async with target.client() as http:
        for _ in range(2):
            body = next(bodies)
            sample = await target.ask(http, body, time.perf_counter())
            if sample.status != HTTPStatus.OK:
                raise SystemExit(f"the first requests were answered {sample.status}")
            seconds.append(sample.latency_ms / 1000)
    return seconds[0], seconds[1]
