"""What an engine keeps of each job until its outcome, and whom a fault reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from service.engine.faults import Fault, caught, release_memory
from service.protocol.jobs import Failed, Progress

if TYPE_CHECKING:
    import torch

    from models.pipeline import RowNoise
    from models.text_encoder import PromptEmbeds
    from service.engine.scheduler import Row, Scheduler
    from service.engine.stats import EngineStats
    from service.protocol.jobs import Job, Outcome

_log = structlog.get_logger(__name__)


@dataclass
class JobState:
    job: Job
    added_at: float
    prompt: PromptEmbeds | None = None  # from the first row's admission on, as are the noises
    noises: dict[int, RowNoise] = field(default_factory=dict)  # by seed
    images: dict[int, torch.Tensor] = field(default_factory=dict)  # by row, uint8 [H, W, 3]
    rows_in_fp32: set[int] = field(default_factory=set)  # begun anew, each alone
    num_steps_done: int = 0
    times_ms: dict[str, float] = field(default_factory=dict)
    device_ms: float = 0.0  # its share of what its rows took part in


class States:
    """The jobs that the engine has, and the outcomes of those that it had."""

    def __init__(
        self,
        scheduler: Scheduler,
        stats: EngineStats,
        device: torch.device,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._stats = stats
        self._device = device
        self._clock = clock
        self._states: dict[str, JobState] = {}
        self.outcomes: list[Outcome | Progress] = []

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, row: Row) -> JobState:
        """Return what is kept of a row's job."""
        return self._states[row.job.id]

    def enter(self, job: Job) -> None:
        self._states[job.id] = JobState(job, added_at=self._clock())

    def drop(self, job_id: str) -> bool:
        """Forget a job, wherever it is; False when it is not here. Nothing comes out for it."""
        self._scheduler.remove(job_id)  # unless it has expired there
        return self._states.pop(job_id, None) is not None

    def end(self, outcome: Outcome) -> None:
        """Let a job go with its outcome."""
        self.drop(outcome.job_id)
        self.outcomes.append(outcome)

    def take_outcomes(self) -> list[Outcome | Progress]:
        """Return what has come out since the last call."""
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def report_progress(self, rows: Sequence[Row]) -> None:
        """Report one more step to jobs that asked for progress."""
        for row in self.live_rows(rows):
            if row.job.reports_progress:
                self[row].num_steps_done += 1
                num_steps = row.num_steps * row.job.num_rows
                progress = Progress(row.job.id, self[row].num_steps_done, num_steps)
                self.outcomes.append(progress)

    def alive(self, rows: Sequence[Row]) -> list[Row]:
        return list(self.live_rows(rows))

    def live_rows(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield rows, but those of a job that has ended meanwhile."""
        return (row for row in rows if self._is_here(row.job))

    def _is_here(self, job: Job) -> bool:
        state = self._states.get(job.id)
        return state is not None and state.job is job  # another may have come by its id

    def run_isolated(self, job: Job, work: Callable[[], object]) -> None:
        """Run one job's own work; a fault is that job's failure. Without memory try once more."""
        fault = caught(work)
        if fault is Fault.OUT_OF_MEMORY:
            self.recover_memory()
            fault = caught(work)
        if fault is not None:
            self._stats.num_failed += 1
            _log.error("a job failed", job_id=job.id, reason=fault.value)
            self.end(Failed(job.id, fault.value))

    def together(self, rows: Sequence[Row], work: Callable[[Sequence[Row]], object]) -> None:
        """Run the work of rows in one call; where that fails each alone, to spare the others."""
        if len(rows) > 1:
            fault = caught(partial(work, rows))
            if fault is None:
                return
            if fault is Fault.OUT_OF_MEMORY:
                self.recover_memory()
        for row in self.live_rows(rows):
            self.run_isolated(row.job, partial(work, [row]))

    def recover_memory(self) -> None:
        self._stats.num_out_of_memory += 1
        release_memory(self._device)

    def charge(self, rows: Sequence[Row], stage: str, elapsed_ms: float) -> None:
        """Add a stage that rows shared: all of it to each job, of the device's time its share."""
        for job_id, num_rows in Counter(row.job.id for row in self.alive(rows)).items():
            state = self._states[job_id]
            state.times_ms[stage] = state.times_ms.get(stage, 0.0) + elapsed_ms
            state.device_ms += elapsed_ms * num_rows / len(rows)
