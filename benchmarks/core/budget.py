"""The seconds that a run may take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """A span of time that begins when it is made."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = clock() + seconds

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends - self._clock())

    @property
    def is_spent(self) -> bool:
        return self.left_s <= 0

    def part(self, share: float) -> Budget:
        """Return a budget that begins now, of a share (0 to 1) of what is left."""
        return Budget(share * self.left_s, self._clock)
