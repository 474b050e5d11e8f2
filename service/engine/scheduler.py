"""Which rows share the next step. Knows no torch and no clock: `now` is an argument.

A job waits with its rows; a row takes a slot, runs all its steps and gives the slot back. Rows
share a step when they have the same key, the shape of their latents; steps, strength, guidance,
prompt and seed may all differ. Jobs take turns at free slots, a row each, so that the tiles of a
large one hold nobody up for longer than a row.
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

MAX_ADMISSIONS = 2
"""Rows admitted before one step: each costs an encode, for which the rows in flight wait."""


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
    """One step's work: rows to admit, rows of one key to denoise, jobs whose time is up."""

    admitted: list[Row] = field(default_factory=list)
    running: list[Row] = field(default_factory=list)
    expired: list[Job] = field(default_factory=list)


@dataclass
class _Entry:
    """A job and how many of its rows have been admitted."""

    job: Job
    num_steps: int
    deadline: float
    num_admitted: int = 0

    @property
    def has_rows_left(self) -> bool:
        return self.num_admitted < self.job.num_rows


class Scheduler:
    """Jobs take turns at slots, the oldest row decides the step, whoever fits joins it.

    `max_batch` rows at most are in slots and share a forward; `max_waiting` jobs at most wait.
    """

    def __init__(self, *, max_batch: int, max_waiting: int) -> None:
        self.max_batch = max_batch
        self._max_waiting = max_waiting
        self._entries: dict[str, _Entry] = {}
        self._turns: deque[str] = deque()  # jobs with rows that have no slot yet
        self._rows: dict[int, Row] = {}  # by slot, the oldest first
        self._free_slots = list(range(max_batch))

    @property
    def num_waiting(self) -> int:
        """Jobs of which no row has a slot yet."""
        return sum(self._entries[job_id].num_admitted == 0 for job_id in self._turns)

    @property
    def num_running(self) -> int:
        """Rows in slots."""
        return len(self._rows)

    def has_work(self) -> bool:
        return bool(self._entries)

    def add(self, job: Job, *, num_steps: int, now: float) -> None:
        """Let a job wait, each of its rows for `num_steps` steps.

        Raises QueueFull when `max_waiting` jobs wait already.
        """
        if self.num_waiting >= self._max_waiting:
            raise QueueFull("the queue is full, try again later")
        self._entries[job.id] = _Entry(job, num_steps, now + job.timeout_s)
        self._turns.append(job.id)

    def remove(self, job_id: str) -> bool:
        """Forget a job wherever it is and free its slots; False when it is not here."""
        if self._entries.pop(job_id, None) is None:
            return False
        self._turns = deque(other for other in self._turns if other != job_id)
        for row in [row for row in self._rows.values() if row.job.id == job_id]:
            self.release(row)
        return True

    def release(self, row: Row) -> None:
        """Free the slot of a row that has been retired."""
        del self._rows[row.slot]
        heapq.heappush(self._free_slots, row.slot)

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
        expired = [entry.job for entry in self._entries.values() if entry.deadline <= now]
        for job in expired:
            self.remove(job.id)
        return expired

    def _admit(self) -> list[Row]:
        admitted: list[Row] = []
        while self._turns and self._free_slots and len(admitted) < MAX_ADMISSIONS:
            entry = self._entries[self._turns.popleft()]
            slot = heapq.heappop(self._free_slots)
            row = Row(entry.job, entry.num_admitted, slot, entry.num_steps)
            self._rows[slot] = row
            entry.num_admitted += 1
            if entry.has_rows_left:
                self._turns.append(entry.job.id)
            admitted.append(row)
        return admitted

    def _next_rows(self) -> list[Row]:
        """Take the oldest row with work left, and whoever of its key comes next."""
        rows = [row for row in self._rows.values() if not row.is_done]
        return [row for row in rows if row.key == rows[0].key]
