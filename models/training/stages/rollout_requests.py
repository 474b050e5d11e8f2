"""What is asked of the student in a rehearsal: the requests that it will be served with.

A request begins with a doodle, with a true picture, which is to stay as it is, with a warped one,
which is to be set right, with another thing's doodle, where guidance has its say, or with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from models.lcm import LCMSchedule, timesteps
from models.training.networks import noise as diffusion
from models.training.stages.latent_dataset import Sample

REACH = 799  # timestep: what is open below it, a picture tells; above, what a picture shows is open
KEPT_LATEST = 479  # timestep: of four steps from nothing the last one stands below it


def _one_of(values: tuple[float, ...]) -> float:
    """Draw by torch's lot, which members of a team have of their own."""
    return values[int(torch.randint(len(values), ()))]


class Goal(Enum):
    """What a row should come to."""

    TRUE = "the true picture"
    KEPT = "the picture that the step before it made"
    SAID = "what the student said of it before the lesson"


class Requests(NamedTuple):
    """What is asked of the student in a rehearsal, and for which share of the rows."""

    share: float
    begin_with: Callable[[Sample], Tensor]  # the pictures [B, 4, h, w]
    strengths: tuple[float, ...]
    steps: tuple[float, ...]
    goal: Goal
    latest: int = REACH

    def draw(self, schedule: LCMSchedule) -> list[int]:
        """Return the timesteps of one of them, up to one that is not above `latest`."""
        request = timesteps(schedule, int(_one_of(self.steps)), _one_of(self.strengths))
        ends = [step for step, timestep in enumerate(request) if timestep <= self.latest]
        return request[: int(_one_of(tuple(ends))) + 1]


def of_doodles(sample: Sample) -> Tensor:
    return sample.doodles


def of_pictures(sample: Sample) -> Tensor:
    return sample.latents


def of_warped(sample: Sample) -> Tensor:
    return diffusion.warped(sample.latents)


def of_others(sample: Sample) -> Tensor:
    return sample.doodles.roll(1, 0)


def of_nothing(sample: Sample) -> Tensor:
    return torch.zeros_like(sample.latents)


# The rows that are left stand anywhere, as in the lessons before.
REQUESTS = (
    Requests(0.17, of_doodles, (0.4, 0.5, 0.6, 0.6, 0.7, 0.8), (3, 4, 4, 4, 6, 8), Goal.TRUE),
    Requests(0.17, of_pictures, (0.2, 0.3, 0.3, 0.4, 0.6), (4, 4, 6, 8), Goal.TRUE),
    Requests(0.34, of_warped, (0.5, 0.6, 0.7, 0.75, 0.75, 0.8), (2, 3, 3, 4, 5), Goal.TRUE),
    Requests(0.08, of_others, (0.6, 0.7, 0.8, 0.9), (3, 4, 4, 6), Goal.SAID),
    Requests(0.08, of_nothing, (1.0,), (4, 4, 6, 8), Goal.KEPT, latest=KEPT_LATEST),
)


def groups(count: int) -> Iterator[tuple[Requests, slice]]:
    """Yield which of a batch's rows are asked what, as far as they go."""
    begin = 0
    for requests in REQUESTS:
        end = min(begin + max(1, round(requests.share * count)), count)
        if end > begin:
            yield requests, slice(begin, end)
        begin = end
