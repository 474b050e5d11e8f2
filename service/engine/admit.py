"""How a row comes in: its prompt embedded, its noise drawn, its picture encoded into its slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.lcm import add_noise, step_coefficients, timesteps
from models.runtime.transfer import to_device
from service.engine.context import Shared, Stage
from service.engine.slot_tables import RowInputs

if TYPE_CHECKING:
    from models.pipeline import RowNoise
    from models.text_encoder import PromptEmbeds
    from service.engine.scheduler import Row
    from service.engine.warmup import Warmup


class Admitter(Stage):
    """Fills the slots of rows; those alike are encoded in one call."""

    def __init__(
        self, shared: Shared, clock: Callable[[], float], warming: Warmup | None = None
    ) -> None:
        super().__init__(shared)
        self._clock = clock
        self._warming = warming

    def admit(self, rows: Sequence[Row]) -> None:
        """Fill the slots of new rows. One that cannot be encoded fails alone."""
        for row in self._states.live_rows(rows):
            self._states.run_isolated(row.job, partial(self._prompt, row))
        for batch in self._checkpoints.alike(self._states.alive(rows)):
            self._states.together(batch, self._enter)

    def begin_in_fp32(self, row: Row) -> None:
        """Fill the slot of a row that has overflowed 16 bits anew."""
        self._enter([row], in_fp32=True)

    def _prompt(self, row: Row) -> PromptEmbeds:
        return self._states[row].prompt or self._begin(row)

    def _begin(self, row: Row) -> PromptEmbeds:
        """Do once what all rows of a job share: its prompt, and the fields of noise by seed."""
        job, params, pipeline = row.job, row.job.params, self._checkpoints.pipeline(row.job)
        state = self._states[row]
        state.times_ms["queue_ms"] = 1000 * (self._clock() - state.added_at)
        with self._flights.timed([row], "text_ms"):
            prompt = pipeline.encode_prompt(params.prompt, params.negative_prompt, params.style)
        height, width = job.image.shape[:2]
        kind = self._checkpoints.autoencoder(job)
        with self._flights.timed([row], "encode_ms"):
            state.noises = {
                seed: pipeline.draw_noise(seed, height, width, row.num_steps, kind)
                for seed in set(params.seeds)
            }
        state.prompt = prompt
        return prompt

    def _enter(self, rows: Sequence[Row], *, in_fp32: bool = False) -> None:
        with self._flights.timed(rows, "encode_ms"):
            clean = self._encode(rows, in_fp32=in_fp32)  # [B, C, h, w]
            for row, latents in zip(rows, clean, strict=True):
                inputs = self._row_inputs(row, latents)
                self._warm(row)
                self._tables.of(row, inputs).write(row.slot, inputs)

    def _encode(self, rows: Sequence[Row], *, in_fp32: bool) -> torch.Tensor:
        """Encode the rows' parts of their pictures, padded to a bucket, into [B, C, h, w]."""
        pipeline, kind = self._checkpoints.pipeline(rows[0].job), self._kind(rows[0])
        padded = rows if in_fp32 else self._checkpoints.padded(rows)
        pixels = np.stack([row.job.image[_area(row)] for row in padded])  # [B, H, W, 3]
        noises = [self._noise(row).posterior for row in padded]
        drawn = [noise for noise in noises if noise is not None]  # of one kind: all or none
        posterior = torch.stack(drawn) if drawn else None
        pixels_on_host = torch.from_numpy(pixels)
        return pipeline.encode_image(pixels_on_host, posterior, kind, in_fp32=in_fp32)[: len(rows)]

    def _row_inputs(self, row: Row, clean: torch.Tensor) -> RowInputs:
        """Put together what a row needs for its steps; `clean` are its latents [C, h, w]."""
        params, pipeline = row.job.params, self._checkpoints.pipeline(row.job)
        noise = self._noise(row)
        steps = timesteps(pipeline.schedule, params.num_inference_steps, params.strength)
        start = to_device(noise.start[None], clean.device, clean.dtype)  # [1, C, h, w]
        alpha = to_device(pipeline.alphas_cumprod[steps[:1]], clean.device)  # [1]
        return RowInputs(
            latents=add_noise(clean[None], start, alpha)[0],
            clean=clean,
            mask=self._mask(row, clean),
            noise=noise.steps,
            coefficients=step_coefficients(pipeline.schedule, pipeline.alphas_cumprod, steps),
            timesteps=steps,
            conditioning=pipeline.condition(
                self._prompt(row), params.guidance_scale, params.height, params.width
            ),
        )

    def _noise(self, row: Row) -> RowNoise:
        """Return the part of a row in its job's field of noise."""
        params, pipeline = row.job.params, self._checkpoints.pipeline(row.job)
        noises, origin = self._states[row].noises, row.job.row_origins()[row.index]
        field_of_noise = noises[params.seeds[row.index]]
        return pipeline.crop_noise(field_of_noise, origin, params.height, params.width)

    def _mask(self, row: Row, clean: torch.Tensor) -> torch.Tensor:
        """Return a row's mask [1, h, w], 0 where its latents stay."""
        if row.job.mask is None:
            return clean.new_ones(1, *clean.shape[1:])
        mask = torch.from_numpy(row.job.mask[_area(row)])
        return self._checkpoints.pipeline(row.job).latent_mask(mask)

    def _warm(self, row: Row) -> None:
        if self._warming is not None:
            params = row.job.params
            pipeline = self._checkpoints.pipeline(row.job)
            self._warming.add(pipeline, params.height, params.width)

    def _kind(self, row: Row) -> str:
        return self._checkpoints.autoencoder(row.job)


def _area(row: Row) -> tuple[slice, slice]:
    """Return where a row lies in its job's picture."""
    (y, x), params = row.job.row_origins()[row.index], row.job.params
    return np.s_[y : y + params.height, x : x + params.width]
