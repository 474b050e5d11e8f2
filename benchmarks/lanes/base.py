"""What a lane is: one way to make pictures, timed side by side with others.

All lanes make the same picture of the same job, with one checkpoint, dtype, device, seed, steps,
strength and guidance; pixels in and pixels out, without HTTP or a codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from benchmarks.core.timing import Call
from service.protocol.jobs import Job, Pixels


class Lane(Protocol):
    """`unet_calls` and `unet_rows` are those of the last `run`."""

    name: str
    unet_calls: int
    unet_rows: int

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """Make all pictures; return for each the seconds from the start of the call."""
        ...

    def picture(self, job: Job) -> Pixels: ...


class StreamingLane(Lane, Protocol):
    """A lane that runs frames of one user as a stream."""

    def stream(self, frames: Sequence[Job], in_flight: int) -> tuple[float, list[float]]:
        """Run frames of one user in order, `in_flight` of them at a time.

        Returns the seconds from when the stream was full until as many pictures had come as there
        are frames, and the latency of each.
        """
        ...


class StagedLane(Lane, Protocol):
    """A lane whose stages can be timed one by one, each on a row of `size` x `size` pixels."""

    def stages(self, size: int) -> dict[str, Call]: ...
