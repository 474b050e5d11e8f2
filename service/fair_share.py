"""Who among the callers is served next, so that a flood of one leaves the others their share.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing", 1996): every caller has a
tag, the work that was given them; a piece of work starts at its caller's tag, and the piece with
the least start goes first. Of two callers who both have work waiting, neither is ever ahead of the
other by more than a piece of each. Knows no clock and no job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class StartTimeFairQueue:
    """The work done for each caller, in any unit, while they have jobs here."""

    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._num_jobs: Counter[str] = Counter()
        self._now = 0.0  # the start of what is being done

    def enter(self, caller: str) -> None:
        """Count one more job of a caller. Time spent away is no credit."""
        if not self._num_jobs:
            self._tags.clear()  # no caller is ahead of another
        self._tags[caller] = max(self._tags.get(caller, 0.0), self._now)
        self._num_jobs[caller] += 1

    def leave(self, caller: str) -> None:
        """Count one job less. The tag stays: who comes back at once has had their turn."""
        self._num_jobs[caller] -= 1
        if not self._num_jobs[caller]:
            del self._num_jobs[caller]
            self._tags = {
                other: tag
                for other, tag in self._tags.items()
                if other in self._num_jobs or tag > self._now
            }

    def begin(self, caller: str, work: float) -> float:
        """Give a caller who has a job here a piece of work; return its start."""
        start = self._tags[caller]
        self._tags[caller] += work
        return start

    def add(self, caller: str, work: float) -> None:
        """Charge a caller who has a job here for work whose size was not known before."""
        self._tags[caller] += work

    def advance(self, start: float) -> None:
        """Note that a piece with this start is being done: where a newcomer begins."""
        self._now = max(self._now, start)

    def in_turn(self, callers: Iterable[str]) -> list[str]:
        """Return callers who have jobs here, the one with the least work first."""
        return sorted(set(callers), key=lambda caller: (self._tags[caller], caller))
