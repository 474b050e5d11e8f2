"""The denoising loop: jobs in, pictures out, one step of a batch at a time.

Synchronous, and of one thread: the thread that owns the device. What a row's picture is depends
on its own job alone, whatever else shares the batch, and a row that fails, fails alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import structlog
import torch

from models.graphs import buckets_up_to, fit_bucket
from models.lcm import (
    add_noise,
    lcm_step,
    num_steps_run,
    step_coefficients,
    timesteps,
)
from models.pipeline import to_uint8
from service.engine.faults import Fault, NotFinite, caught, memory_bytes, release_memory
from service.engine.slots import MAX_STEPS, RowInputs, SlotTable
from service.engine.stats import EngineStats, Pace
from service.errors import DeadlineExceeded, GenerationFailed, QueueFull
from service.jobs import Failed, Finished, Outcome, Progress, StageTimes

if TYPE_CHECKING:
    from models.pipeline import Pipeline, RowNoise
    from models.prompts import PromptEmbeds
    from service.engine.scheduler import Key, Row, Scheduler
    from service.engine.warming import Warming
    from service.jobs import Autoencoder, Job

_log = structlog.get_logger(__name__)


@dataclass
class _JobState:
    job: Job
    added_at: float
    prompt: PromptEmbeds | None = None  # from the first row's admission on, as are the noises
    noises: dict[int, RowNoise] = field(default_factory=dict)  # by seed
    images: dict[int, torch.Tensor] = field(default_factory=dict)  # by row, uint8 [H, W, 3]
    rows_in_fp32: set[int] = field(default_factory=set)  # begun anew, each alone
    num_steps_done: int = 0
    times_ms: dict[str, float] = field(default_factory=dict)
    device_ms: float = 0.0  # its share of what its rows took part in


class Engine:
    """Continuous batching at the step: rows join and leave between two UNet calls."""

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        scheduler: Scheduler,
        clock: Callable[[], float] = time.monotonic,
        *,
        warming: Warming | None = None,
        poisons_freed_slots: bool = False,
    ) -> None:
        self._warming = warming
        self.stats = EngineStats()
        self.pace = Pace(clock)
        self._poisons_freed_slots = poisons_freed_slots
        self._pipelines = pipelines  # by the name of the checkpoint, the default first
        self._device = next(iter(pipelines.values())).device
        self._scheduler = scheduler
        self._clock = clock
        self._states: dict[str, _JobState] = {}
        self._tables: dict[Key, SlotTable] = {}
        self._outcomes: list[Outcome | Progress] = []

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

    def has_work(self) -> bool:
        """Tell whether `step` would do anything."""
        return bool(self._outcomes) or self._scheduler.has_work()

    def add(self, job: Job) -> None:
        """Let a job wait for slots; whatever becomes of it comes out of `step`."""
        now = self._clock()
        try:
            rows_per_row = self._pipeline(job).rows_per_row
            num_steps = self._num_steps(job)
            self._scheduler.add(job, num_steps=num_steps, now=now, rows_per_row=rows_per_row)
        except (QueueFull, GenerationFailed) as error:
            self._outcomes.append(Failed(job.id, error.code))
        else:
            self._states[job.id] = _JobState(job, added_at=now)

    def abort(self, job_id: str) -> None:
        """Drop a job wherever it is; nothing comes out for it any more."""
        if self._scheduler.remove(job_id):
            del self._states[job_id]
            self.stats.num_aborted += 1

    def step(self) -> list[Outcome | Progress]:
        """Admit who fits, run one UNet call, retire who is done; return what came of it."""
        if self._warming is not None:
            self._warming.advance()
        with self.pace.step():
            batch = self._scheduler.schedule(self._clock())
            self._expire(batch.expired)
            self._admit(batch.admitted)
            self._retire(self._denoise(batch.running))
            if self._poisons_freed_slots:
                self._poison_free_slots()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _expire(self, jobs: Sequence[Job]) -> None:
        self.stats.num_expired += len(jobs)
        for job in jobs:
            self._end(Failed(job.id, DeadlineExceeded.code))

    def _admit(self, rows: Sequence[Row]) -> None:
        for row in self._each_alive(rows):
            state = self._states[row.job.id]
            self._failing_alone(row.job, partial(self._enter, row, state))

    def _enter(self, row: Row, state: _JobState) -> None:
        """Fill a row's slot."""
        prompt = state.prompt or self._begin(state)
        with self._timed(state, "encode_ms"):
            in_fp32 = row.index in state.rows_in_fp32
            inputs = self._row_inputs(row, prompt, state.noises, in_fp32=in_fp32)
        self._table(row, inputs).write(row.slot, inputs)

    def _begin(self, state: _JobState) -> PromptEmbeds:
        """Do once what all rows of a job share: its prompt, and the fields of noise by seed."""
        job, params, pipeline = state.job, state.job.params, self._pipeline(state.job)
        state.times_ms["queue_ms"] = 1000 * (self._clock() - state.added_at)
        with self._timed(state, "text_ms"):
            prompt = pipeline.encode_prompt(params.prompt, params.negative_prompt, params.style)
            state.prompt = prompt
        height, width = job.image.shape[:2]
        with self._timed(state, "encode_ms"):
            state.noises = {
                seed: pipeline.draw_noise(
                    seed, height, width, self._num_steps(job), self._autoencoder(job)
                )
                for seed in set(params.seeds)
            }
        return prompt

    def _row_inputs(
        self, row: Row, prompt: PromptEmbeds, noises: dict[int, RowNoise], *, in_fp32: bool
    ) -> RowInputs:
        job, params, pipeline = row.job, row.job.params, self._pipeline(row.job)
        steps = timesteps(pipeline.schedule, params.num_inference_steps, params.strength)
        y, x = origin = job.row_origins()[row.index]
        field_of_noise = noises[params.seeds[row.index]]
        noise = pipeline.crop_noise(field_of_noise, origin, params.height, params.width)
        area = np.s_[y : y + params.height, x : x + params.width]
        mask = np.ones((params.height, params.width)) if job.mask is None else job.mask[area]
        posterior = None if noise.posterior is None else noise.posterior[None]
        pixels = torch.from_numpy(job.image[area])[None]  # [1, H, W, 3]
        clean = pipeline.encode_image(pixels, posterior, self._autoencoder(job), in_fp32=in_fp32)
        start = noise.start[None].to(clean)  # [1, C, h, w], as is clean
        alpha = pipeline.alphas_cumprod[steps[:1]].to(clean.device)  # [1]
        return RowInputs(
            latents=add_noise(clean, start, alpha)[0],
            clean=clean[0],
            mask=pipeline.latent_mask(torch.from_numpy(mask)),
            noise=noise.steps,
            coefficients=step_coefficients(pipeline.schedule, pipeline.alphas_cumprod, steps),
            timesteps=steps,
            conditioning=pipeline.condition(
                prompt, params.guidance_scale, params.height, params.width
            ),
        )

    def _denoise(self, scheduled: Sequence[Row]) -> list[Row]:
        """Run one step on the rows; return those that are done. A poisoned row fails alone."""
        rows = self._alive(scheduled)
        self._run(rows)
        finished = self._scheduler.advance(self._alive(rows))
        self._report_progress(self._alive(rows))
        return finished

    def _run(self, scheduled: Sequence[Row]) -> None:
        """Run rows together; where memory does not suffice by halves, else each alone."""
        rows = self._without_those_in_fp32(self._alive(scheduled))
        if len(rows) <= 1:
            for row in rows:
                self._failing_alone(row.job, partial(self._forward, [row]))
            return
        fault = caught(partial(self._forward, rows))
        if fault is Fault.OUT_OF_MEMORY:
            self._recover_memory()
            self._scheduler.lower_max_batch()
            half = len(rows) // 2
            self._run(rows[:half])
            self._run(rows[half:])
        elif fault is not None:
            for row in rows:
                self._run([row])

    def _without_those_in_fp32(self, rows: Sequence[Row]) -> list[Row]:
        """Run the rows that overflow 16 bits, each alone; return the others."""
        apart = [row for row in rows if row.index in self._states[row.job.id].rows_in_fp32]
        for row in self._each_alive(apart):
            self._failing_alone(row.job, partial(self._forward, [row], in_fp32=True))
        return [row for row in self._each_alive(rows) if row not in apart]

    def _forward(self, rows: Sequence[Row], *, in_fp32: bool = False) -> None:
        """Call the UNet once; the slots change only if it succeeds."""
        started = self._clock()
        pipeline, table = self._pipeline(rows[0].job), self._tables[rows[0].key]
        # The last row stands in for the rows that a bucket lacks; what it makes there is left.
        buckets = buckets_up_to(self._scheduler.most_rows(rows[0]), pipeline.buckets)
        padding = 0 if in_fp32 else fit_bucket(len(rows), buckets) - len(rows)
        padded = [*rows, *[rows[-1]] * padding]
        inputs = table.gather(padded)
        self.stats.count_call(len(rows), padding)
        styles = [row.job.params.style for row in padded]
        output = pipeline.predict_noise(
            inputs.latents, inputs.timesteps, inputs.conditioning, styles, in_fp32=in_fp32
        )  # [B, C, h, w]
        latents = lcm_step(
            output,
            inputs.latents,
            inputs.noise,
            inputs.coefficients,
            clean=inputs.clean,
            mask=inputs.mask,
            clip_sample_range=pipeline.schedule.clip_sample_range,
        )
        table.scatter(rows, latents[: len(rows)])
        elapsed_ms = 1000 * (self._clock() - started)
        for job_id, num_rows in Counter(row.job.id for row in rows).items():
            state = self._states[job_id]
            _add_time(state, "denoise_ms", elapsed_ms)
            state.device_ms += elapsed_ms * num_rows / len(rows)

    def _retire(self, rows: Sequence[Row]) -> None:
        """Decode rows that are done; a job with all its pictures is finished."""
        for row in self._each_alive(rows):
            state = self._states[row.job.id]
            self._failing_alone(row.job, partial(self._leave, row, state))

    def _leave(self, row: Row, state: _JobState) -> None:
        """Give a row's slot back for its picture."""
        with self._timed(state, "vae_ms"):
            picture = self._decode(row, state)
        if picture is None:
            return  # it runs once more
        state.images[row.index] = picture
        self._scheduler.release(row)
        if len(state.images) == row.job.num_rows:
            self._end(self._finished(state, row.num_steps))

    def _decode(self, row: Row, state: _JobState) -> torch.Tensor | None:
        """Return a row's picture, uint8 [H, W, 3]; None where it was begun anew in fp32.

        One wait for the device tells all. Where 16 bits did not suffice for the picture the
        autoencoder is run again in fp32, for the latents the whole row. Raises NotFinite when that
        does not help either.
        """
        latents = self._tables[row.key].latents[row.slot : row.slot + 1]  # [1, C, h, w]
        pipeline, autoencoder = self._pipeline(row.job), self._autoencoder(row.job)
        pixels = pipeline.decode_latents(latents, autoencoder)[0]  # [H, W, 3]
        is_fine = torch.isfinite(latents).all() & (latents.amin() != latents.amax())
        has_latents, has_pixels = torch.stack([is_fine, torch.isfinite(pixels).all()]).tolist()
        if not (has_latents and has_pixels):
            if pipeline.dtype == torch.float32:
                raise self._not_finite()
            if not has_latents:
                self._begin_in_fp32(row, state)
                return None
            pixels = self._decode_in_fp32(row.job, latents)
        return to_uint8(pixels).cpu()

    def _decode_in_fp32(self, job: Job, latents: torch.Tensor) -> torch.Tensor:
        self.stats.num_fp32_retries += 1
        pipeline, autoencoder = self._pipeline(job), self._autoencoder(job)
        pixels = pipeline.decode_latents(latents, autoencoder, in_fp32=True)[0]  # [H, W, 3]
        if not bool(torch.isfinite(pixels).all()):
            raise self._not_finite()
        return pixels

    def _begin_in_fp32(self, row: Row, state: _JobState) -> None:
        """Encode a row again and let it run its steps once more, all of that in fp32."""
        if row.index in state.rows_in_fp32:
            raise self._not_finite()
        self.stats.num_fp32_retries += 1
        state.rows_in_fp32.add(row.index)
        state.num_steps_done -= row.num_steps
        self._enter(row, state)
        self._scheduler.restart(row)

    def _not_finite(self) -> NotFinite:
        self.stats.num_not_finite += 1
        return NotFinite("neither latents nor pixels of a row may be NaN, infinite or all equal")

    def _finished(self, state: _JobState, num_steps: int) -> Finished:
        pipeline = self._pipeline(state.job)
        images = torch.stack([state.images[index] for index in range(state.job.num_rows)])
        return Finished(
            state.job.id,
            images.numpy(),
            num_steps_run=num_steps,
            num_tokens_dropped=state.prompt.dropped if state.prompt else 0,
            times=StageTimes(**state.times_ms),
            device_ms=state.device_ms,
            autoencoder=self._autoencoder(state.job),
            guidance_scale=pipeline.used_guidance(state.job.params.guidance_scale),
            reads_negative_prompt=pipeline.rows_per_row > 1,
        )

    def _end(self, outcome: Outcome) -> None:
        self._scheduler.remove(outcome.job_id)
        del self._states[outcome.job_id]
        self._outcomes.append(outcome)

    def _failing_alone(self, job: Job, work: Callable[[], None]) -> None:
        """Run one job's own work; a fault is that job's failure. Without memory try once more."""
        fault = caught(work)
        if fault is Fault.OUT_OF_MEMORY:
            self._recover_memory()
            fault = caught(work)
        if fault is not None:
            self.stats.num_failed += 1
            _log.error("a job failed", job_id=job.id, reason=fault.value)
            self._end(Failed(job.id, fault.value))

    def _recover_memory(self) -> None:
        self.stats.num_out_of_memory += 1
        release_memory(self._device)

    def _poison_free_slots(self) -> None:
        for table in self._tables.values():
            for slot in self._scheduler.free_slots:
                table.poison(slot)

    def _report_progress(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.job.reports_progress:
                state = self._states[row.job.id]
                state.num_steps_done += 1
                num_steps = row.num_steps * row.job.num_rows
                self._outcomes.append(Progress(row.job.id, state.num_steps_done, num_steps))

    def _alive(self, rows: Sequence[Row]) -> list[Row]:
        return list(self._each_alive(rows))

    def _each_alive(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield rows, but those of a job that has failed meanwhile."""
        return (row for row in rows if row.job.id in self._states)

    def _num_steps(self, job: Job) -> int:
        """Return the steps that each row of a job runs.

        Raises GenerationFailed for more than a slot holds.
        """
        params, schedule = job.params, self._pipeline(job).schedule
        num_steps = num_steps_run(schedule, params.num_inference_steps, params.strength)
        if num_steps > MAX_STEPS:
            raise GenerationFailed(f"a row runs at most {MAX_STEPS} steps")
        return num_steps

    def _pipeline(self, job: Job) -> Pipeline:
        """Return the checkpoint that a job names. Raises GenerationFailed for an unknown one."""
        name = job.params.model or next(iter(self._pipelines))
        if name not in self._pipelines:
            raise GenerationFailed(f"no checkpoint {name!r} is loaded")
        return self._pipelines[name]

    def _autoencoder(self, job: Job) -> Autoencoder:
        return self._pipeline(job).autoencoder_kind(job.params.autoencoder)

    def _table(self, row: Row, like: RowInputs) -> SlotTable:
        if row.key not in self._tables:
            params = row.job.params
            if self._warming is not None:
                self._warming.add(self._pipeline(row.job), params.height, params.width)
            self._tables[row.key] = SlotTable(like, num_slots=self._scheduler.num_slots)
        return self._tables[row.key]

    @contextmanager
    def _timed(self, state: _JobState, stage: str) -> Iterator[None]:
        started = self._clock()
        yield
        elapsed_ms = 1000 * (self._clock() - started)
        _add_time(state, stage, elapsed_ms)
        state.device_ms += elapsed_ms


def _add_time(state: _JobState, stage: str, elapsed_ms: float) -> None:
    state.times_ms[stage] = state.times_ms.get(stage, 0.0) + elapsed_ms
