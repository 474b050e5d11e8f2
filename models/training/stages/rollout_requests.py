"""The simulated requests of the rollout stages: their inputs, parameters and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import NamedTuple

import torch
from torch import Tensor

from models.lcm import LCMSchedule, timesteps
from models.training.stages.corruption import warp
from models.training.stages.latent_dataset import LatentBatch

MAX_TIMESTEP = 799  # up to it the image under the noise decides the content
KEEP_MAX_TIMESTEP = 479  # the last of four steps from nothing is below it


class Target(Enum):
    """What a row should be."""

    TRUE_IMAGE = auto()
    PREVIOUS_STEP = auto()  # the prediction of the step before
    FROZEN_STUDENT = auto()  # the prediction of the student before this stage


def _choice(values: tuple[float, ...]) -> float:
    """Draw with torch's generator, whose seeds differ between processes."""
    return values[int(torch.randint(len(values), ()))]


class RequestKind(NamedTuple):
    """Requests for a share of the rows of a batch."""

    share: float
    inputs: Callable[[LatentBatch], Tensor]  # the latents [B, 4, h, w] that a request begins with
    strengths: tuple[float, ...]
    steps: tuple[float, ...]
    target: Target
    max_timestep: int = MAX_TIMESTEP

    def draw(self, schedule: LCMSchedule) -> list[int]:
        """Return the timesteps of a random request, up to a random one below `max_timestep`."""
        request = timesteps(schedule, int(_choice(self.steps)), _choice(self.strengths))
        ends = [step for step, timestep in enumerate(request) if timestep <= self.max_timestep]
        return request[: int(_choice(tuple(ends))) + 1]


def doodles(batch: LatentBatch) -> Tensor:
    return batch.doodles


def images(batch: LatentBatch) -> Tensor:
    return batch.latents


def warped_images(batch: LatentBatch) -> Tensor:
    return warp(batch.latents)


def other_doodles(batch: LatentBatch) -> Tensor:
    """Return doodles of other scenes: the prompt contradicts them, and guidance matters."""
    return batch.doodles.roll(1, 0)


def nothing(batch: LatentBatch) -> Tensor:
    return torch.zeros_like(batch.latents)


_TRUE, _FROZEN, _KEEP = Target.TRUE_IMAGE, Target.FROZEN_STUDENT, Target.PREVIOUS_STEP
REQUEST_KINDS = (
    RequestKind(0.17, doodles, (0.4, 0.5, 0.6, 0.6, 0.7, 0.8), (3, 4, 4, 4, 6, 8), _TRUE),
    RequestKind(0.17, images, (0.2, 0.3, 0.3, 0.4, 0.6), (4, 4, 6, 8), _TRUE),
    RequestKind(0.34, warped_images, (0.5, 0.6, 0.7, 0.75, 0.75, 0.8), (2, 3, 3, 4, 5), _TRUE),
    RequestKind(0.08, other_doodles, (0.6, 0.7, 0.8, 0.9), (3, 4, 4, 6), _FROZEN),
    RequestKind(0.08, nothing, (1.0,), (4, 4, 6, 8), _KEEP, max_timestep=KEEP_MAX_TIMESTEP),
)
"""The remaining rows are noisy as in the stages before."""


def assign_rows(count: int) -> Iterator[tuple[RequestKind, slice]]:
    """Yield each kind with its rows of a batch of `count`, until no rows are left."""
    start = 0
    for kind in REQUEST_KINDS:
        end = min(start + max(1, round(kind.share * count)), count)
        if end > start:
            yield kind, slice(start, end)
        start = end
