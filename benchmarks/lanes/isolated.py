"""A lane in a process of its own: what ours sets for its whole process, as malloc, is not there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.lanes.base import Lane
from service.jobs import Job, Pixels


class ApartLane:
    """What `make`, which is pickled, makes over there. The process ends with this one."""

    def __init__(self, name: str, make: Callable[[], Lane]) -> None:
        """Raises RuntimeError where it cannot be made."""
        self.name = name
        self.unet_calls = self.unet_rows = 0
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, make), daemon=True).start()
        theirs.close()
        self._answer()

    def run(self, jobs: Sequence[Job]) -> list[float]:
        seconds: list[float]
        seconds, self.unet_calls, self.unet_rows = self._ask("run", jobs)
        return seconds

    def picture(self, job: Job) -> Pixels:
        pixels: Pixels = self._ask("picture", job)
        return pixels

    def _ask(self, verb: str, given: Any) -> Any:
        self._pipe.send((verb, given))
        return self._answer()

    def _answer(self) -> Any:
        """Return what came of the last question. Raises RuntimeError for what went wrong there."""
        try:
            fault, answer = self._pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"{self.name}: its process has ended") from error
        if fault:
            raise RuntimeError(f"{self.name}: {fault}")
        return answer


def _serve(pipe: Connection, make: Callable[[], Lane]) -> None:
    """Make the lane, and answer until nobody asks any more."""
    lane: Lane | None = None

    def do(verb: str, given: Any) -> Any:
        nonlocal lane
        if lane is None:
            lane = make()
            return None
        if verb == "picture":
            return lane.picture(given)
        return lane.run(given), lane.unet_calls, lane.unet_rows

    question = ("make", None)
    while True:
        try:
            pipe.send(("", do(*question)))
        except Exception as error:  # noqa: BLE001 - whatever it is, who asks is told
            pipe.send((repr(error), None))
        try:
            question = pipe.recv()
        except EOFError:
            return
