"""Who among the callers is served next, so that a flood of one leaves the others their share.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing", 1996): every caller has a
tag, the work that was done for them; the lowest tag goes first. Of two callers who both have work
waiting, neither is ever ahead of the other by more than one piece of it. Knows no clock and no job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Shares:
    """The work done for each caller, in any unit, while they have jobs here."""

    def __init__(self) -> None:
        self._tags: dict[str, float] = {}
        self._num_jobs: Counter[str] = Counter()

    def enter(self, caller: str) -> None:
        """Count one more job of a caller. Time spent away is no credit."""
        if not self._num_jobs:
            self._tags.clear()  # nobody has anything to make good
        floor = self._floor()
        self._tags[caller] = max(self._tags.get(caller, floor), floor)
        self._num_jobs[caller] += 1

    def leave(self, caller: str) -> None:
        """Count one job less. The tag stays: who comes back at once has had their turn."""
        self._num_jobs[caller] -= 1
        if not self._num_jobs[caller]:
            del self._num_jobs[caller]
            floor = self._floor()
            self._tags = {
                other: tag
                for other, tag in self._tags.items()
                if other in self._num_jobs or tag > floor
            }

    def charge(self, caller: str, work: float) -> None:
        """Add work that was done, or is about to be, for a caller who has a job here."""
        self._tags[caller] += work

    def in_turn(self, callers: Iterable[str]) -> list[str]:
        """Return callers who have jobs here, the one with the least work first."""
        return sorted(set(callers), key=lambda caller: (self._tags[caller], caller))

    def _floor(self) -> float:
        """Return the least tag of those who have jobs here: where a newcomer begins."""
        return min((self._tags[caller] for caller in self._num_jobs), default=0.0)
