"""The checkpoints of an engine: which one a job runs on, and what it makes of the job's wishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from models.lcm import num_steps_run
from models.runtime.forward import buckets_up_to, fit_bucket
from service.engine.slot_tables import MAX_STEPS
from service.errors import GenerationFailed

if TYPE_CHECKING:
    from models.pipeline import Pipeline
    from service.engine.scheduler import Key, Row
    from service.protocol.jobs import Autoencoder, Job


class Checkpoints:
    """The pipelines by the name of their checkpoint, the default first.

    `most_rows` says how many rows like one share a call at most.
    """

    def __init__(self, pipelines: Mapping[str, Pipeline], most_rows: Callable[[Row], int]) -> None:
        self._pipelines = pipelines
        self._most_rows = most_rows

    def pipeline(self, job: Job) -> Pipeline:
        """Return the checkpoint that a job names. Raises GenerationFailed for an unknown one."""
        name = job.params.model or next(iter(self._pipelines))
        if name not in self._pipelines:
            raise GenerationFailed(f"no checkpoint {name!r} is loaded")
        return self._pipelines[name]

    def autoencoder(self, job: Job) -> Autoencoder:
        return self.pipeline(job).autoencoder_kind(job.params.autoencoder)

    def num_steps(self, job: Job) -> int:
        """Return the steps that each row of a job runs.

        Raises GenerationFailed for more than a slot holds.
        """
        params, schedule = job.params, self.pipeline(job).schedule
        num_steps = num_steps_run(schedule, params.num_inference_steps, params.strength)
        if num_steps > MAX_STEPS:
            raise GenerationFailed(f"a row runs at most {MAX_STEPS} steps")
        return num_steps

    def padded(self, rows: Sequence[Row]) -> list[Row]:
        """Fill rows of one call up to their bucket.

        The last row stands in for those that a bucket lacks; what it makes there is left.
        """
        pipeline = self.pipeline(rows[0].job)
        buckets = buckets_up_to(self._most_rows(rows[0]), pipeline.buckets)
        return [*rows, *[rows[-1]] * (fit_bucket(len(rows), buckets) - len(rows))]

    def alike(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        """Split rows by what those of one encode or decode have in common, and into batches."""
        kinds: dict[tuple[Key, Autoencoder], list[Row]] = defaultdict(list)
        for row in rows:
            kinds[row.key, self.autoencoder(row.job)].append(row)
        for same in kinds.values():
            most = self._most_rows(same[0])
            yield from (same[start : start + most] for start in range(0, len(same), most))
