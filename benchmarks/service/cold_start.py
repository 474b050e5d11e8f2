"""How long a start takes, to ready and to the first picture, with and without compiled code."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from benchmarks.core.experiment import Case, Experiment, Session
from benchmarks.core.rows import Row
from benchmarks.service.served import served
from service.loadgen.loops import Target
from service.loadgen.workload import Trace

_READY_WITHIN_S = 3600.0  # it may compile first
_RESTORED = "full, cache restored"

STARTS = {"eager": "off"}
COMPILED_STARTS = {
    "background, cache empty": "background", "full, cache empty": "full", _RESTORED: "full",
}  # fmt: skip
"""REFINE_COMPILE by the name of a start."""


class ColdStart(Experiment):
    """Starts of the service with some settings.

    The restored cache is that of the start before it in this run, or else is made for it first.
    The files of checkpoint and libraries are mostly in the machine's memory.
    """

    title = "starts"
    table = "start"
    key = ("start",)
    columns = ("start", "ready_s", "first_picture_s", "second_picture_s")

    def __init__(
        self, settings: Mapping[str, str], conditions: Mapping[str, Any], *, is_compiled: bool
    ) -> None:
        super().__init__(conditions)
        self._settings = settings
        self._starts = STARTS | (COMPILED_STARTS if is_compiled else {})

    def groups(self) -> Sequence[Sequence[Case]]:
        return [[{"start": name} for name in self._starts]]

    def run(self, cases: Sequence[Case], session: Session) -> Iterator[Row]:
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "full"
            for case in session.each(cases, "starts"):
                name = case["start"]
                if name == _RESTORED and not kept.exists():
                    self._start("full", kept)
                mode = self._starts[name]
                yield {**case, **self._start(mode, Path(folder) / mode)}

    def _start(self, mode: str, cache: Path) -> Row:
        ours = {"REFINE_COMPILE": mode, "REFINE_CACHE_DIR": str(cache)}
        with served({**self._settings, **ours}, ready_within_s=_READY_WITHIN_S) as service:
            first_s, second_s = asyncio.run(_first_pictures(service.url))
            return {
                "ready_s": round(service.ready_s, 2),
                "first_picture_s": round(service.ready_s + first_s, 2),
                "second_picture_s": round(second_s, 3),
            }


async def _first_pictures(url: str) -> list[float]:
    """Return the seconds of the first two requests. Raises RuntimeError if one is refused."""
    target, bodies, seconds = Target(url), Trace().bodies(), []
    async with target.client() as http:
        for _ in range(2):
            sample = await target.ask(http, next(bodies), time.perf_counter())
            if sample.status != HTTPStatus.OK:
                raise RuntimeError(f"a first request was answered {sample.status}, expected 200")
            seconds.append(sample.latency_ms / 1000)
    return seconds
