"""Which rows share the next step. Knows no torch and no clock: `now` is an argument.

A job waits, then runs in as many slots as it has rows, then is removed: finished, failed,
aborted or past its deadline. Rows share a step when they have the same key, the shape of their
latents; steps, strength, guidance, prompt and seed may all differ.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.errors import QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.jobs import Job

Key = tuple[int, int]
"""Height and width: what rows of one forward must have in common."""


@dataclass(eq=False)
class Row:
    """One picture of a job in its slot. `step` of `num_steps` are done."""

    job: Job
    index: int
    slot: int
    num_steps: int
    step: int = 0

    @property
    def key(self) -> Key:
        return self.job.params.height, self.job.params.width

    @property
    def is_done(self) -> bool:
        return self.step >= self.num_steps


@dataclass(frozen=True)
class Batch:
    """One step's work: jobs to admit, rows of one key to denoise, jobs whose time is up."""

    admitted: list[list[Row]] = field(default_factory=list)
    running: list[Row] = field(default_factory=list)
    expired: list[Job] = field(default_factory=list)


@dataclass(frozen=True)
class _Waiting:
    job: Job
    num_steps: int
    deadline: float


@dataclass(frozen=True)
class _Running:
    rows: list[Row]
    deadline: float


class Scheduler:
    """First come, first served, and whoever fits joins the running step.

    `max_batch` rows at most share a forward; `max_waiting` jobs at most wait. A job with more
    rows than `max_batch` runs alone, in several forwards a step.
    """

    def __init__(self, *, max_batch: int, max_waiting: int, num_slots: int | None = None) -> None:
        self.max_batch = max_batch
        self.num_slots = max(max_batch, num_slots or max_batch)
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[str, _Running] = {}
        self._free_slots = list(range(self.num_slots))

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Rows in slots."""
        return self.num_slots - len(self._free_slots)

    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def add(self, job: Job, *, num_steps: int, now: float) -> None:
        """Let a job wait, each of its rows for `num_steps` steps.

        Raises QueueFull when `max_waiting` jobs wait already, ValueError for a job of more rows
        than there are slots.
        """
        if job.num_rows > self.num_slots:
            raise ValueError(f"{job.num_rows} rows do not fit {self.num_slots} slots")
        if len(self._waiting) >= self._max_waiting:
            raise QueueFull("the queue is full, try again later")
        self._waiting.append(_Waiting(job, num_steps, now + job.timeout_s))

    def remove(self, job_id: str) -> bool:
        """Forget a job wherever it is and free its slots; False when it is not here."""
        running = self._running.pop(job_id, None)
        if running is not None:
            for row in running.rows:
                heapq.heappush(self._free_slots, row.slot)
            return True
        before = len(self._waiting)
        self._waiting = deque(entry for entry in self._waiting if entry.job.id != job_id)
        return len(self._waiting) < before

    def schedule(self, now: float) -> Batch:
        """Decide the next step. Expired jobs are removed; admitted rows take their slots."""
        expired = self._expire(now)
        admitted = self._admit()
        return Batch(admitted=admitted, running=self._next_rows(), expired=expired)

    def advance(self, rows: Sequence[Row]) -> list[Row]:
        """Count one step done for each row; return those that have now done all of theirs."""
        for row in rows:
            row.step += 1
        return [row for row in rows if row.is_done]

    def _expire(self, now: float) -> list[Job]:
        expired = [entry.job for entry in self._waiting if entry.deadline <= now]
        expired += [entry.rows[0].job for entry in self._running.values() if entry.deadline <= now]
        for job in expired:
            self.remove(job.id)
        return expired

    def _admit(self) -> list[list[Row]]:
        admitted = []
        while self._waiting and self._has_room(self._waiting[0].job):
            entry = self._waiting.popleft()
            slots = [heapq.heappop(self._free_slots) for _ in range(entry.job.num_rows)]
            rows = [
                Row(entry.job, index, slot, entry.num_steps) for index, slot in enumerate(slots)
            ]
            self._running[entry.job.id] = _Running(rows, entry.deadline)
            admitted.append(rows)
        return admitted

    def _has_room(self, job: Job) -> bool:
        return self.num_running == 0 or self.num_running + job.num_rows <= self.max_batch

    def _next_rows(self) -> list[Row]:
        """Take the oldest row with work left, and whoever of its key comes next."""
        rows = [row for entry in self._running.values() for row in entry.rows if not row.is_done]
        return [row for row in rows if row.key == rows[0].key][: self.max_batch]
