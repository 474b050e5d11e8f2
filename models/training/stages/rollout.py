"""The lesson before last: a request's steps, rehearsed on the student's own pictures.

What lies under the noise when it is served is a doodle, or what a step before made of one, or of
nothing: forms that wobble, which endings of noise leave as they are. So the student rehearses
requests and says at one of their steps what should have come of it (Yin et al. 2024, arXiv
2405.14867, section 4.4): the true picture; or, of nothing, what the step before it made, to keep
it; or what it said before the lesson, where guidance decides.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from models.lcm import LCMSchedule
from models.training.loop.precision import mixed
from models.training.networks.architecture import build_scheduler
from models.training.stages.distillation import Asked, Lesson, consistency, huber
from models.training.stages.latent_dataset import Sample
from models.training.stages.rollout_requests import REACH, Goal, groups
from models.training.stages.teacher import Teacher


class Rehearsal(NamedTuple):
    """What is asked of the student after its own steps, and what should come of it."""

    asked: Asked
    goal: Tensor  # [B, 4, h, w]
    free: Tensor  # indices of the rows that are not held to what was said before


class Rehearsing(Lesson):
    """What is asked in the steps of requests, and what of the student must stay."""

    def __init__(self, teacher: Teacher, student: UNet2DConditionModel) -> None:
        super().__init__(teacher, student)
        self.before = copy.deepcopy(self.target)
        self.schedule = LCMSchedule.from_config(build_scheduler().config)

    @torch.no_grad()
    def rehearse(self, sample: Sample) -> Rehearsal:
        """Return what is asked, and the pictures that it should come to."""
        asked, goal = self.ask(sample), sample.latents.clone()
        is_held = asked.timesteps > REACH
        for requests, rows in groups(len(goal)):
            request = requests.draw(self.schedule)
            started = asked.of(rows)._replace(x_t=requests.begin_with(sample)[rows])
            asked.x_t[rows], made = self.rehearsed(started, sample, request)
            asked.timesteps[rows] = request[-1]
            is_held[rows] = requests.goal is Goal.SAID
            if requests.goal is Goal.KEPT:
                goal[rows] = made
        held = is_held.nonzero()[:, 0]
        if len(held):
            trunk = self.trunk_for(sample)
            goal[held] = consistency(self.before, asked.of(held), self.powers, trunk)
        return Rehearsal(asked, goal, (~is_held).nonzero()[:, 0])

    def rehearsed(self, asked: Asked, sample: Sample, request: list[int]) -> tuple[Tensor, Tensor]:
        """Return x_t [B, 4, h, w] at a request's last timestep, and the pictures under its noise.

        The request begins with the pictures `asked.x_t`.
        """
        pictures = asked.x_t
        for timestep in request:
            now = torch.full_like(asked.timesteps, timestep)
            x_t = self.noised(pictures, sample, now)
            if timestep != request[-1]:
                step = asked._replace(x_t=x_t, timesteps=now)
                pictures = consistency(self.target, step, self.powers, self.trunk_for(sample))
        return x_t, pictures

    def forward(self, sample: Sample) -> Tensor:
        """Return the pseudo-Huber distance between what the student says and what it should."""
        with mixed(sample.latents.device):
            asked, goal, _ = self.rehearse(sample)
            guess = consistency(self.student, asked, self.powers, self.trunk_for(sample))
        return huber(guess, goal)
