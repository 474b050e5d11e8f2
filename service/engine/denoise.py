"""How rows take a step: one UNet call for those that share it, and whom its faults reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from models.lcm import lcm_step
from service.engine.context import Stage
from service.engine.faults import Fault, caught

if TYPE_CHECKING:
    from service.engine.scheduler import Row


class Denoiser(Stage):
    """Runs steps of rows in their slots."""

    def denoise(self, scheduled: Sequence[Row]) -> None:
        """Run one step on the rows. A poisoned row fails alone."""
        rows = self._states.alive(scheduled)
        self._run(self._without_those_in_fp32(rows))
        stepped = self._states.alive(rows)
        self._scheduler.advance(stepped)
        self._flights.next.stepped += stepped

    def _without_those_in_fp32(self, rows: Sequence[Row]) -> list[Row]:
        """Run the rows that overflow 16 bits, each alone; return the others."""
        apart = [row for row in rows if row.index in self._states[row].rows_in_fp32]
        for row in self._states.live_rows(apart):
            self._states.run_isolated(row.job, partial(self._forward, [row], in_fp32=True))
        return [row for row in self._states.live_rows(rows) if row not in apart]

    def _run(self, scheduled: Sequence[Row]) -> None:
        """Run rows together; where memory does not suffice by halves, else each alone."""
        rows = self._states.alive(scheduled)
        if len(rows) <= 1:
            self._states.together(rows, self._forward)
            return
        fault = caught(partial(self._forward, rows))
        if fault is Fault.OUT_OF_MEMORY:
            self._states.recover_memory()
            self._scheduler.lower_max_batch()
            half = len(rows) // 2
            self._run(rows[:half])
            self._run(rows[half:])
        elif fault is not None:
            for row in rows:
                self._run([row])

    def _forward(self, rows: Sequence[Row], *, in_fp32: bool = False) -> None:
        """Call the UNet once; the slots change only if it succeeds."""
        pipeline, table = self._checkpoints.pipeline(rows[0].job), self._tables[rows[0].key]
        padded = rows if in_fp32 else self._checkpoints.padded(rows)
        self._stats.count_call(len(rows), len(padded) - len(rows))
        with self._flights.timed(rows, "denoise_ms"):
            inputs = table.gather(padded)
            output = pipeline.predict_noise(
                inputs.latents,
                inputs.timesteps,
                inputs.conditioning,
                [row.job.params.style for row in padded],
                in_fp32=in_fp32,
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
            table.scatter(inputs.slots[: len(rows)], latents[: len(rows)])
