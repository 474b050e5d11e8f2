"""A lane in a separate process, without our engine's process-wide settings such as malloc's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.lanes.base import Lane
from service.protocol.jobs import Job, Pixels


class IsolatedLane:
    """The lane that `make`, which is pickled, returns in the other process. Both end together."""

    def __init__(self, name: str, make: Callable[[], Lane]) -> None:
        """Raises RuntimeError if the lane cannot be made."""
        self.name = name
        self.unet_calls = self.unet_rows = 0
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, make), daemon=True).start()
        theirs.close()
        self._receive()

    def run(self, jobs: Sequence[Job]) -> list[float]:
        self._pipe.send(("run", jobs))
        seconds: list[float]
        seconds, self.unet_calls, self.unet_rows = self._receive()
        return seconds

    def picture(self, job: Job) -> Pixels:
        self._pipe.send(("picture", job))
        pixels: Pixels = self._receive()
        return pixels

    def _receive(self) -> Any:
        try:
            fault, result = self._pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"{self.name}: its process has ended") from error
        if fault:
            raise RuntimeError(f"{self.name}: {fault}")
        return result


def _serve(pipe: Connection, make: Callable[[], Lane]) -> None:
    """Make the lane and answer calls until the other end closes. Sends (fault, result)."""
    try:
        lane = make()
    except Exception as error:  # noqa: BLE001 - the caller raises it
        pipe.send((repr(error), None))
        return
    pipe.send(("", None))
    while True:
        try:
            method, argument = pipe.recv()
        except EOFError:
            return
        try:
            result = getattr(lane, method)(argument)
            counted = (result, lane.unet_calls, lane.unet_rows)
            pipe.send(("", counted if method == "run" else result))
        except Exception as error:  # noqa: BLE001 - the caller raises it
            pipe.send((repr(error), None))
