"""What crosses between the front and the engine: parameters, jobs, and what becomes of them.

A leaf of the import graph: no torch, no HTTP, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture [H, W, 3], pictures [rows, H, W, 3], or a mask [H, W]."""


AUTOENCODER_STEPS = 4.4
"""What encoding and decoding a row cost, in UNet steps: 1.4 and 3, by the FLOPs of SD 1.5."""

Origin = tuple[int, int]
"""The top left corner (y, x) of a row's part of its job's picture, in pixels."""


Autoencoder = Literal["full", "tiny"]
"""The checkpoint's own autoencoder, or the small one that stands beside it."""

DEFAULT_MODEL = ""
"""The first checkpoint of the engine, by whatever name."""


def step_work(height: int, width: int) -> float:
    """Return the cost of one row's UNet step, in those of 512 x 512."""
    return height * width / 512**2


def rows_that_fit(max_batch: int, height: int, width: int, rows_per_row: int = 1) -> int:
    """Return how many rows of `height` x `width` pixels share a forward: at least one.

    `max_batch` is meant at 512 x 512, in rows of the UNet, of which a row takes `rows_per_row`.
    Larger rows are fewer, by their area, so that a step costs no more whatever its shape is:
    a newcomer waits for it. Smaller ones are no more than `max_batch`.
    """
    return max(1, int(max_batch / (rows_per_row * max(1.0, step_work(height, width)))))


@dataclass(frozen=True)
class GenerationParams:
    """One request in the field's words, every value decided.

    `prompt` already stands in its style's template. A job is one or more rows of `height` x
    `width` pixels: `seeds` holds a seed for each, and `origins` where each lies in the job's
    picture, which is larger than a row when the rows are tiles. `model` names a checkpoint that
    the engine has loaded, `style` the LoRA that it may have for it. `negative_prompt` is None
    where the request had none, which some checkpoints treat unlike an empty one.
    """

    prompt: str
    height: int
    width: int
    num_inference_steps: int
    strength: float
    guidance_scale: float
    seeds: tuple[int, ...]
    origins: tuple[Origin, ...] = ((0, 0),)
    model: str = DEFAULT_MODEL
    style: str = "NONE"
    autoencoder: Autoencoder = "full"
    negative_prompt: str | None = None

    @property
    def step_work(self) -> float:
        """The cost of one row's UNet step, in those of 512 x 512."""
        return step_work(self.height, self.width)

    @property
    def work(self) -> float:
        """The cost of all rows with their autoencoder, in the same unit."""
        return len(self.seeds) * self.step_work * (self.num_inference_steps + AUTOENCODER_STEPS)


@dataclass(frozen=True)
class Job:
    """A request on its way: `image` is uint8 [H, W, 3], of the params' size or its tiles'.

    `mask`, uint8 [H, W], is 0 where an inpainting leaves the picture as it is; None repaints all
    of it. `timeout_s` counts from the moment the engine receives the job, since two machines
    share no clock. `caller` names whose share of the engine the job is charged to.
    """

    id: str
    params: GenerationParams
    image: Pixels
    timeout_s: float
    reports_progress: bool = False
    mask: Pixels | None = None
    caller: str = ""

    @property
    def num_rows(self) -> int:
        return len(self.params.seeds)

    def row_origins(self) -> tuple[Origin, ...]:
        """Return the origin of each row; a single one holds for all."""
        origins = self.params.origins
        return origins * self.num_rows if len(origins) == 1 else origins


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds that the engine spent on a job, by stage; `queue_ms` is its wait for a slot."""

    queue_ms: float = 0.0
    text_ms: float = 0.0
    encode_ms: float = 0.0
    denoise_ms: float = 0.0
    vae_ms: float = 0.0

    @property
    def busy_ms(self) -> float:
        return self.text_ms + self.encode_ms + self.denoise_ms + self.vae_ms


@dataclass(frozen=True)
class Finished:
    """A job's pictures, uint8 [rows, H, W, 3], and what the caller should know of them.

    `guidance_scale` is the one that the model was given, None where it is the request's own;
    `device_ms` the device's time that is this job's, where rows of several jobs share a call.
    """

    job_id: str
    images: Pixels
    num_steps_run: int
    num_tokens_dropped: int
    times: StageTimes = field(default_factory=StageTimes)
    autoencoder: Autoencoder = "full"
    guidance_scale: float | None = None
    reads_negative_prompt: bool = False
    device_ms: float = 0.0


@dataclass(frozen=True)
class Failed:
    """A job that ended without a picture; `code` is that of the error class in `service.errors`."""

    job_id: str
    code: str


@dataclass(frozen=True)
class Progress:
    """`step` of `num_steps` UNet steps of a job are done, over all its rows."""

    job_id: str
    step: int
    num_steps: int


Outcome = Finished | Failed
