"""Stage 8: the student learns on rollouts, the steps of a request on its own predictions.

In a request the image under the noise is a doodle, the prediction of the step before, or nothing.
Its forms are distorted, and trajectory distillation keeps them. The student therefore runs requests
and learns the target of one of their steps (Yin et al. 2024, arXiv 2405.14867, section 4.4): the
true image; the prediction of the step before, in a request from nothing; or its prediction before
this stage, where guidance decides.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from models.training.loop.precision import mixed
from models.training.stages.distillation import Distillation, NoisyBatch, pseudo_huber
from models.training.stages.latent_dataset import LatentBatch
from models.training.stages.rollout_requests import MAX_TIMESTEP, Target, assign_rows
from models.training.stages.teacher import Teacher


class Rollout(NamedTuple):
    """The student's inputs after its own steps, and its targets."""

    noisy: NoisyBatch
    targets: Tensor  # [B, 4, h, w]
    free_rows: Tensor  # indices of the rows whose target is not the frozen student's prediction


class RolloutDistillation(Distillation):
    """Rollouts of simulated requests, and the frozen student that keeps the other rows in place."""

    def __init__(self, teacher: Teacher, student: UNet2DConditionModel) -> None:
        super().__init__(teacher, student)
        self.frozen = copy.deepcopy(self.ema)

    @torch.no_grad()
    def roll_out(self, batch: LatentBatch) -> Rollout:
        """Run a request of some kind for each row of a batch."""
        noisy, targets = self.sample_noisy(batch), batch.latents.clone()
        is_frozen = noisy.timesteps > MAX_TIMESTEP
        for kind, rows in assign_rows(len(targets)):
            request = kind.draw(self.schedule.lcm)
            start = noisy.rows(rows)._replace(x_t=kind.inputs(batch)[rows])
            noisy.x_t[rows], predicted = self.run_request(start, batch, request)
            noisy.timesteps[rows] = request[-1]
            is_frozen[rows] = kind.target is Target.FROZEN_STUDENT
            if kind.target is Target.PREVIOUS_STEP:
                targets[rows] = predicted
        frozen = is_frozen.nonzero()[:, 0]
        if len(frozen):
            targets[frozen] = self.predict(self.frozen, noisy.rows(frozen), batch)
        return Rollout(noisy, targets, (~is_frozen).nonzero()[:, 0])

    def run_request(
        self, start: NoisyBatch, batch: LatentBatch, request: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Run a request's timesteps from the latents `start.x_t`.

        Return x_t [B, 4, h, w] at the last timestep, and the latents under its noise.
        """
        latents = start.x_t
        for timestep in request:
            timesteps = torch.full_like(start.timesteps, timestep)
            x_t = self.add_noise(latents, batch, timesteps)
            if timestep != request[-1]:
                step = start._replace(x_t=x_t, timesteps=timesteps)
                latents = self.predict(self.ema, step, batch)
        return x_t, latents

    def forward(self, batch: LatentBatch) -> Tensor:
        """Return the pseudo-Huber distance between the student's predictions and the targets."""
        with mixed(batch.latents.device):
            noisy, targets, _ = self.roll_out(batch)
            predicted = self.predict(self.student, noisy, batch)
        return pseudo_huber(predicted, targets)
