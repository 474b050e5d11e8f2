"""The denoising loop: jobs in, pictures out, one step of a batch at a time.

Synchronous, and of one thread: the thread that owns the device. What a row's picture is depends
on its own job alone, whatever else shares the batch, and a row that fails, fails alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from models.runtime.transfer import transfer_of
from service.engine.admit import Admitter
from service.engine.batching import Checkpoints
from service.engine.context import Shared
from service.engine.denoise import Denoiser
from service.engine.faults import memory_bytes
from service.engine.in_flight import InFlightStep, OverlapQueue
from service.engine.job_state import States
from service.engine.retire import Retirer
from service.engine.slot_tables import SlotTables
from service.engine.stats import EngineStats, Pace
from service.errors import DeadlineExceeded, GenerationFailed, QueueFull
from service.protocol.jobs import Failed

if TYPE_CHECKING:
    from models.pipeline import Pipeline
    from models.runtime.transfer import Transfer
    from service.engine.scheduler import Scheduler
    from service.engine.warmup import Warmup
    from service.protocol.jobs import Job, Outcome, Progress


class Engine:
    """Continuous batching at the step: rows join and leave between two UNet calls.

    `pipelines` are by the name of the checkpoint, the default first. `transfer` is another way
    from the device to the host than the device's own.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        scheduler: Scheduler,
        clock: Callable[[], float] = time.monotonic,
        *,
        warming: Warmup | None = None,
        transfer: Transfer | None = None,
        poisons_freed_slots: bool = False,
    ) -> None:
        self.pipelines = pipelines
        self.stats = EngineStats()
        self.pace = Pace(clock)
        self.warming = warming
        self._poisons_freed_slots = poisons_freed_slots
        self._scheduler = scheduler
        self._clock = clock
        self._device = device = next(iter(pipelines.values())).device
        self._checkpoints = Checkpoints(pipelines, scheduler.most_rows)
        self._tables = SlotTables(scheduler.num_slots)
        self._states = States(scheduler, self.stats, device, clock)
        self._flights = OverlapQueue(transfer or transfer_of(device))
        shared = Shared(
            self._checkpoints, self._states, self._tables, self._flights, scheduler, self.stats
        )
        self._admitter = Admitter(shared, clock, warming)
        self._denoiser = Denoiser(shared)
        self._retirer = Retirer(shared, self._admitter)

    @property
    def num_jobs(self) -> int:
        """Jobs of which anything is kept."""
        return len(self._states)

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def max_batch(self) -> int:
        """Rows of 512 x 512 that share a step: fewer than at first if memory did not suffice."""
        return self._scheduler.max_batch

    def device_bytes(self) -> tuple[int, int]:
        """Return the device's memory that tensors have, and that torch keeps; 0 on a CPU."""
        return memory_bytes(self._device)

    @property
    def is_warming(self) -> bool:
        """Whether something may yet become warm."""
        return self.warming is not None and self.warming.num_warm < self.warming.num_targets

    def advance_warming(self) -> None:
        """Take up a shape that has been compiled meanwhile, if there is one."""
        if self.warming is not None:
            with self.pace.adoption():
                self.warming.advance()

    def warm_rows(self) -> dict[str, dict[str, list[int]]]:
        """Return the numbers of rows that are warm, by checkpoint and shape."""
        if self.warming is None:
            return {}
        return {name: self.warming.warm_rows(one) for name, one in self.pipelines.items()}

    def has_work(self) -> bool:
        """Return whether `step` would do anything."""
        return bool(self._states.outcomes or self._flights) or self._scheduler.has_work()

    def add(self, job: Job) -> None:
        """Let a job wait for slots; whatever becomes of it comes out of `step`."""
        now = self._clock()
        try:
            rows_per_row = self._checkpoints.pipeline(job).rows_per_row
            num_steps = self._checkpoints.num_steps(job)
            self._scheduler.add(job, num_steps=num_steps, now=now, rows_per_row=rows_per_row)
        except (QueueFull, GenerationFailed) as error:
            self._states.outcomes.append(Failed(job.id, error.code))
        else:
            self._states.enter(job)

    def abort(self, job_id: str) -> None:
        """Drop a job wherever it is; nothing comes out for it any more."""
        if self._states.drop(job_id):
            self.stats.num_aborted += 1

    def step(self) -> list[Outcome | Progress]:
        """Admit who fits, run one UNet call, retire who is done; return what has come of it.

        The device goes on with it meanwhile: what it has not done yet comes out of a later call.
        """
        self.advance_warming()
        with self.pace.step():
            batch = self._scheduler.schedule(self._clock())
            self._expire(batch.expired)
            self._admitter.admit(batch.admitted)
            self._denoiser.denoise(batch.running)
            self._retirer.retire(self._scheduler.retire())
            self._flights.depart()
            for flight in self._flights.arrivals(self._scheduler.can_go_on):
                self._land(flight)
            if self._poisons_freed_slots:
                self._tables.poison(self._scheduler.free_slots)
        return self._states.take_outcomes()

    def _land(self, flight: InFlightStep) -> None:
        """Collect what the device has finished: times first, since outcomes report them."""
        for span in flight.spans:
            self._states.charge(span.rows, span.stage, span.end.ms_since(span.start))
        self._states.report_progress(flight.stepped)
        for decoded in flight.decoded:
            self._retirer.collect(decoded)

    def _expire(self, jobs: Sequence[Job]) -> None:
        self.stats.num_expired += len(jobs)
        for job in jobs:
            self._states.end(Failed(job.id, DeadlineExceeded.code))
