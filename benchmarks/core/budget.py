"""Seconds that a run may take: what is most telling goes first, what does not fit waits."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """A span of time that began when this was made."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = seconds
        self._started = clock()

    @property
    def left_s(self) -> float:
        return max(0.0, self._started + self._seconds - self._clock())

    @property
    def is_spent(self) -> bool:
        return self.left_s <= 0

    def part(self, share: float) -> Budget:
        """Return a budget of a share (0 to 1) of what is left, which begins now."""
        return Budget(share * self.left_s, self._clock)
