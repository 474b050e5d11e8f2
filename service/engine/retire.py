"""How a row goes out: its latents are decoded, and a job with all its pictures is finished.

In two phases, so that no step waits for the device: a step lets rows be decoded and their pictures
set out for the host, and when they have arrived, a step later at the latest, they are collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from models.runtime.packing import pack, unpack
from service.engine.context import Shared, Stage
from service.engine.faults import NotFinite
from service.engine.in_flight import Decoded
from service.protocol.jobs import Finished, StageTimes

if TYPE_CHECKING:
    from service.engine.admit import Admitter
    from service.engine.scheduler import Row


class Retirer(Stage):
    """Decodes rows that are done; those alike in one call.

    A row keeps its slot until its picture has arrived, since it may have to be run again: where
    16 bits did not suffice for the picture the autoencoder is run in fp32, for the latents the row.
    """

    def __init__(self, shared: Shared, admitter: Admitter) -> None:
        super().__init__(shared)
        self._admitter = admitter

    def retire(self, rows: Sequence[Row]) -> None:
        """Let rows be decoded. What cannot be fails alone."""
        for batch in self._checkpoints.alike(self._states.alive(rows)):
            self._states.together(batch, self._decode)

    def collect(self, decoded: Decoded) -> None:
        """Give the slots of rows back for their pictures. What is no picture fails alone."""
        for row, packed in zip(decoded.rows, decoded.packed, strict=True):
            for alive in self._states.live_rows([row]):  # or its job has ended on the way
                work = partial(self._take, alive, packed, in_fp32=decoded.in_fp32)
                self._states.run_isolated(row.job, work)

    def _decode(self, rows: Sequence[Row], *, in_fp32: bool = False) -> None:
        job, table = rows[0].job, self._tables[rows[0].key]
        pipeline, kind = self._checkpoints.pipeline(job), self._checkpoints.autoencoder(job)
        padded = rows if in_fp32 else self._checkpoints.padded(rows)
        with self._flights.timed(rows, "vae_ms"):
            latents = table.gather_latents(padded)  # [B, C, h, w]
            pixels = pipeline.decode_latents(latents, kind, in_fp32=in_fp32)  # [B, H, W, 3]
            packed = pack(latents[: len(rows)], pixels[: len(rows)])
            on_host = self._flights.transfer.to_host(packed)
        self._flights.next.decoded.append(Decoded(rows, on_host, in_fp32))

    def _take(self, row: Row, packed: torch.Tensor, *, in_fp32: bool) -> None:
        """Take a row's picture, or run again in fp32 what has overflowed 16 bits.

        Raises NotFinite when that does not help either.
        """
        params, pipeline = row.job.params, self._checkpoints.pipeline(row.job)
        picture = unpack(packed, params.height, params.width)
        if picture.has_latents and picture.has_pixels:
            self._leave(row, picture.pixels)
        elif in_fp32 or pipeline.dtype == torch.float32:
            raise self._not_finite()
        elif picture.has_latents:
            self._decode([row], in_fp32=True)
            self._stats.num_fp32_retries += 1
        else:
            self._begin_in_fp32(row)

    def _begin_in_fp32(self, row: Row) -> None:
        """Encode a row again and let it run its steps once more, all of that in fp32."""
        state = self._states[row]
        if row.index in state.rows_in_fp32:
            raise self._not_finite()
        self._admitter.begin_in_fp32(row)
        self._stats.num_fp32_retries += 1
        state.rows_in_fp32.add(row.index)
        state.num_steps_done -= row.num_steps
        self._scheduler.restart(row)

    def _not_finite(self) -> NotFinite:
        self._stats.num_not_finite += 1
        return NotFinite("neither latents nor pixels of a row may be NaN, infinite or all equal")

    def _leave(self, row: Row, pixels: torch.Tensor) -> None:
        """Give a row's slot back for its picture, uint8 [H, W, 3]."""
        state = self._states[row]
        state.images[row.index] = pixels
        self._scheduler.release(row)
        if len(state.images) == row.job.num_rows:
            self._states.end(self._finished(row))

    def _finished(self, row: Row) -> Finished:
        state, pipeline = self._states[row], self._checkpoints.pipeline(row.job)
        images = torch.stack([state.images[index] for index in range(row.job.num_rows)])
        return Finished(
            row.job.id,
            images.numpy(),
            num_steps_run=row.num_steps,
            num_tokens_dropped=state.prompt.dropped if state.prompt else 0,
            times=StageTimes(**state.times_ms),
            device_ms=state.device_ms,
            autoencoder=self._checkpoints.autoencoder(row.job),
            guidance_scale=pipeline.used_guidance(row.job.params.guidance_scale),
            reads_negative_prompt=pipeline.rows_per_row > 1,
        )
