"""Which rows share the next step. Knows no torch and no clock: `now` is an argument.

A job waits with its rows; a row takes a slot, runs all its steps and gives the slot back. Rows
share a step when they have the same key, the shape of their latents; steps, strength, guidance,
prompt and seed may all differ.

Callers have equal shares, see `StartTimeFairQueue`: at free slots, and at each step, for which the
caller with the least work done decides the key. Slots beyond the batch are for callers without a
row, so a flood of one leaves the next a slot at once. The jobs of one caller take turns at free
slots, a row each, so the tiles of a large job delay another caller by one row at most.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from service.errors import QueueFull
from service.fair_share import StartTimeFairQueue
from service.protocol.jobs import AUTOENCODER_STEPS, rows_that_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.protocol.jobs import Job

Key = tuple[str, int, int]
"""Checkpoint, height and width: what rows of one forward must have in common."""

MAX_ADMISSIONS = 2
"""Rows admitted before one step: each costs an encode, for which the rows in flight wait."""

MAX_RETIREMENTS = 4
"""Rows decoded in one step: each costs as three UNet steps, for which the rows in flight wait."""

SPARE_SLOTS = 4
"""Slots beyond the batch, for callers who find it taken by others. Their rows wait step by step."""


@dataclass(eq=False)
class Row:
    """One picture of a job in its slot. `step` of `num_steps` are done.

    A row that is done keeps its slot until it is released; once `is_leaving`, it is being decoded.
    """

    job: Job
    index: int
    slot: int
    num_steps: int
    rows_per_row: int = 1  # of the UNet: guidance may double them
    step: int = 0
    start: float = 0.0  # in its caller's share
    is_leaving: bool = False

    @property
    def key(self) -> Key:
        params = self.job.params
        return params.model, params.height, params.width

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
    rows_per_row: int
    num_admitted: int = 0

    @property
    def has_rows_left(self) -> bool:
        return self.num_admitted < self.job.num_rows


class Scheduler:
    """Callers take turns, and the next caller's rows decide the step; every row that fits joins it.

    `max_batch` rows of the UNet at 512 x 512 at most share a forward, fewer of a larger shape;
    `max_waiting` jobs at most wait.
    """

    def __init__(self, *, max_batch: int, max_waiting: int) -> None:
        self.max_batch = max_batch
        # Rows that are done wait for their pictures in slots of their own, a batch of them.
        self.num_slots = 2 * max_batch + SPARE_SLOTS
        self._max_waiting = max_waiting
        self._num_usual_slots = max_batch
        self._entries: dict[str, _Entry] = {}
        self._turns: deque[str] = deque()  # jobs with rows that have no slot yet
        self._rows: dict[int, Row] = {}  # by slot, the oldest first
        self.free_slots = list(range(self.num_slots))
        self._shares = StartTimeFairQueue()
        self.num_waiting = 0  # jobs of which no row has a slot yet; any thread may read it

    @property
    def num_running(self) -> int:
        """Rows in slots."""
        return len(self._rows)

    def has_work(self) -> bool:
        return bool(self._entries)

    def add(self, job: Job, *, num_steps: int, now: float, rows_per_row: int = 1) -> None:
        """Let a job wait, each of its rows for `num_steps` steps of `rows_per_row` UNet rows.

        Raises QueueFull when `max_waiting` jobs wait already.
        """
        if self.num_waiting >= self._max_waiting:
            raise QueueFull("the queue is full, try again later")
        self._entries[job.id] = _Entry(job, num_steps, now + job.timeout_s, rows_per_row)
        self._turns.append(job.id)
        self.num_waiting += 1
        self._shares.enter(job.caller)

    def remove(self, job_id: str) -> bool:
        """Forget a job wherever it is and free its slots; False when it is not here."""
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return False
        self.num_waiting -= entry.num_admitted == 0
        self._shares.leave(entry.job.caller)
        self._turns = deque(other for other in self._turns if other != job_id)
        for row in [row for row in self._rows.values() if row.job.id == job_id]:
            self.release(row)
        return True

    def release(self, row: Row) -> None:
        """Free the slot of a row that has been retired."""
        del self._rows[row.slot]
        heapq.heappush(self.free_slots, row.slot)

    def restart(self, row: Row) -> None:
        """Let a row that is done run its steps once more, in the slot that it still has."""
        row.step, row.is_leaving = 0, False

    def most_rows(self, row: Row) -> int:
        """Return how many rows like this one share a forward at most."""
        params = row.job.params
        return rows_that_fit(self.max_batch, params.height, params.width, row.rows_per_row)

    def lower_max_batch(self) -> None:
        """Halve the rows that share a forward, for as long as this scheduler lives."""
        self.max_batch = max(1, self.max_batch // 2)

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

    def retire(self) -> list[Row]:
        """Take rows that are done and may be decoded in this step; the others have the next one."""
        done = [row for row in self._rows.values() if row.is_done and not row.is_leaving]
        works = accumulate(max(1.0, row.job.params.step_work) for row in done)
        num_fitting = sum(work <= self.max_batch for work in works)
        leaving = done[: min(MAX_RETIREMENTS, max(1, num_fitting))]
        for row in leaving:
            row.is_leaving = True
        return leaving

    def can_go_on(self) -> bool:
        """Return whether the next step would admit, run or retire any row."""
        waits = bool(self._turns and self.free_slots)
        return waits or any(not row.is_leaving for row in self._rows.values())

    def _expire(self, now: float) -> list[Job]:
        expired = [entry.job for entry in self._entries.values() if entry.deadline <= now]
        for job in expired:
            self.remove(job.id)
        return expired

    def _admit(self) -> list[Row]:
        admitted: list[Row] = []
        while len(admitted) < MAX_ADMISSIONS and self.free_slots:
            entry = self._next_entry()
            if entry is None:
                break
            admitted.append(self._take_slot(entry))
        return admitted

    def _next_entry(self) -> _Entry | None:
        """Take the next job's turn: of the callers who may have a slot, the one with least work."""
        waiting: dict[str, str] = {}  # the first job of each caller
        for job_id in self._turns:
            waiting.setdefault(self._entries[job_id].job.caller, job_id)
        unfinished = [row for row in self._rows.values() if not row.is_done]
        if len(unfinished) >= self._num_usual_slots + SPARE_SLOTS:
            return None
        if len(unfinished) >= self._num_usual_slots:
            served = {row.job.caller for row in unfinished}
            waiting = {caller: job for caller, job in waiting.items() if caller not in served}
        for caller in self._shares.in_turn(waiting):
            self._turns.remove(waiting[caller])
            return self._entries[waiting[caller]]
        return None

    def _take_slot(self, entry: _Entry) -> Row:
        slot = heapq.heappop(self.free_slots)
        steps = AUTOENCODER_STEPS + entry.rows_per_row * entry.num_steps
        start = self._shares.begin(entry.job.caller, steps * entry.job.params.step_work)
        row = Row(
            entry.job, entry.num_admitted, slot, entry.num_steps, entry.rows_per_row, start=start
        )
        self._rows[slot] = row
        self.num_waiting -= entry.num_admitted == 0
        entry.num_admitted += 1
        if entry.has_rows_left:
            self._turns.append(entry.job.id)
        return row

    def _next_rows(self) -> list[Row]:
        """Take the unfinished row with the least start, and the next rows of its key."""
        unfinished = [row for row in self._rows.values() if not row.is_done]
        # Of rows that start equal the newest first: a newcomer goes before who has had their turn.
        newest_first = unfinished[::-1]
        rows = sorted(newest_first, key=lambda row: row.start)
        alike = [row for row in rows if row.key == rows[0].key]
        if rows:
            self._shares.advance(rows[0].start)
        return alike[: self.most_rows(alike[0])] if alike else []
