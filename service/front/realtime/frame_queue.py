"""Which frame of a painter runs and which one waits. Knows no socket, no clock and no engine.

One frame runs and one waits. A newer frame takes the place of the one that waits; the one that
runs is never dropped for it: else a user who keeps drawing would see no picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import ValidationFailed
from service.front.realtime.messages import Frame


@dataclass(frozen=True)
class Replaced:
    """A frame that will not run, as a newer one has taken its place."""

    id: int
    by: int


class Session:
    """The frames of one painter. Each that is offered is replaced or runs until it is finished."""

    def __init__(self) -> None:
        self.running: Frame | None = None
        self.waiting: Frame | None = None
        self._last_id = -1

    @property
    def is_idle(self) -> bool:
        return self.running is None and self.waiting is None

    def open(self, frame_id: int) -> None:
        """Take note of a frame's id. Raises ValidationFailed unless it is above all before it."""
        if frame_id <= self._last_id:
            raise ValidationFailed("id must be above every id before it", path="$.id")
        self._last_id = frame_id

    def offer(self, frame: Frame) -> Replaced | None:
        """Let a frame wait; return the one it replaced."""
        replaced, self.waiting = self.waiting, frame
        return None if replaced is None else Replaced(replaced.id, by=frame.id)

    def start(self) -> Frame:
        """Let the waiting frame run; return it."""
        if self.running is not None or self.waiting is None:
            raise RuntimeError("a frame runs already, or none waits")
        self.running, self.waiting = self.waiting, None
        return self.running

    def finish(self) -> None:
        """Note that the running frame has been answered."""
        self.running = None

    def defer(self) -> Replaced | None:
        """Let the running frame wait again; or return that a newer one replaces it."""
        if self.running is None:
            raise RuntimeError("no frame runs")
        deferred, self.running = self.running, None
        if self.waiting is not None:
            return Replaced(deferred.id, by=self.waiting.id)
        self.waiting = deferred
        return None
