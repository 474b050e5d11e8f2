"""Admission: bounded queues, and the estimated wait compared with the deadline.

Refusing at once is kinder than a timeout later. Knows no clock: `now`, in seconds, is an argument.
Work is counted as in `GenerationParams.work`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from service.errors import QueueFull, RateLimited

MAX_RETRY_AFTER_S = 60
CAUTION = 1.2
"""How much longer than estimated a wait may turn out before a deadline is missed."""

_FADING = 0.9  # of what was seen of the engine's speed, at each job
_OUTLIER = 4.0  # a job that took longer, against the estimate, is cut to that: a pause is no speed


@dataclass(eq=False, frozen=True)
class Ticket:
    """A job that was let in."""

    caller: str
    work: float


class Admission:
    """The jobs that an engine has, waiting and running, and how fast it gets through them.

    `max_waiting` jobs may wait in all, `max_waiting_per_caller` of each caller who has a name.
    """

    def __init__(self, *, max_waiting: int, max_waiting_per_caller: int) -> None:
        self._max_waiting = max_waiting
        self._max_waiting_per_caller = max_waiting_per_caller
        self._tickets: set[Ticket] = set()
        self._work: defaultdict[str, float] = defaultdict(float)
        self._num_jobs: Counter[str] = Counter()
        self._busy_since = 0.0
        self._seen_s = 0.0  # seconds of the engine's time, fading, and the work done in them
        self._seen_work = 0.0
        self._row_s = 0.0  # seconds that a row takes in its slot, for each unit of its work

    @property
    def num_pending(self) -> int:
        return len(self._tickets)

    def check(
        self,
        *,
        caller: str = "",
        timeout_s: float = math.inf,
        work: float = 0.0,
        max_batch: int = 1,
    ) -> None:
        """Let a job pass that may wait and is likely to be done within its deadline.

        Raises QueueFull or RateLimited otherwise, with the wait until another try makes sense.
        """
        if self.num_pending >= self._max_waiting + max_batch:
            raise QueueFull(
                "the queue is full, try again later",
                retry_after_s=_whole(self.wait_s("", math.inf)),
            )
        if caller and self._num_jobs[caller] >= self._max_waiting_per_caller + max_batch:
            raise RateLimited(
                f"{self._max_waiting_per_caller} requests of this key wait already",
                retry_after_s=_whole(self.wait_s(caller)),
            )
        wait_s = self.wait_s(caller, work)
        if wait_s > 0 and CAUTION * (wait_s + self._row_s * work) > timeout_s:
            raise QueueFull(
                "this could not be answered within its deadline, try again later",
                retry_after_s=_whole(wait_s + self._row_s * work - timeout_s),
            )

    def enter(self, caller: str, work: float, now: float) -> Ticket:
        """Let a job in."""
        if not self._tickets:
            self._busy_since = now
        ticket = Ticket(caller, work)
        self._tickets.add(ticket)
        self._work[caller] += work
        self._num_jobs[caller] += 1
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Forget a job, whatever became of it."""
        self._tickets.discard(ticket)
        self._num_jobs[ticket.caller] -= 1
        self._work[ticket.caller] -= ticket.work
        if not self._num_jobs[ticket.caller]:
            del self._num_jobs[ticket.caller], self._work[ticket.caller]

    def finished(self, ticket: Ticket, now: float, busy_s: float) -> None:
        """Learn from a job that is done after `busy_s` seconds in its slots, before it leaves."""
        elapsed_s = now - self._busy_since
        if self._seen_work:
            elapsed_s = min(elapsed_s, _OUTLIER * self._unit_s * ticket.work)
        self._busy_since = now
        self._seen_s = _FADING * self._seen_s + elapsed_s
        self._seen_work = _FADING * self._seen_work + ticket.work
        self._row_s += (1 - _FADING) * (busy_s / ticket.work - self._row_s)

    def wait_s(self, caller: str = "", work: float = 0.0) -> float:
        """Estimate how long a caller's next job of this work would wait.

        Shares are equal: until it is done another caller gets no more than this one has had.
        """
        own = self._work.get(caller, 0.0)
        others = sum(
            min(theirs, own + work) for name, theirs in self._work.items() if name != caller
        )
        return self._unit_s * (own + others)

    @property
    def _unit_s(self) -> float:
        """Seconds in which the engine gets one unit of work done; 0 until one was seen."""
        return self._seen_s / self._seen_work if self._seen_work else 0.0


def _whole(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), MAX_RETRY_AFTER_S)
