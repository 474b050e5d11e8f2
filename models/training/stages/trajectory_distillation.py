"""Stages 6 and 7: the student learns the ends of trajectories, then consistency along them.

**Trajectory distillation**: the target is the end of the guided net's DDIM trajectory through a
point, in strides of several grid steps (from noise alone in Luhman and Luhman 2021, arXiv
2101.02388). Near the end of sampling the target is the true image. There the image under the noise
is sometimes the student's own prediction from an earlier step, as in a request (after Yin et al.
2024, arXiv 2405.14867, section 4.4).

**Consistency distillation** (Luo et al. 2023, arXiv 2310.04378, algorithm 1): the target is the
prediction of the student's moving average one DDIM step nearer to the image (k = 20 timesteps, on
the grid of 50).

Consistency alone carries the end of a trajectory up the schedule one grid step at a time, errors
included; two cores did not get to the noise in an hour. It is therefore a short stage after the
other one, and half of its rows still learn the ends.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from models.training.networks.noise import GRID_STRIDE
from models.training.stages.distillation import Distillation, NoisyBatch
from models.training.stages.latent_dataset import LatentBatch
from models.training.stages.teacher import Teacher

DDIM_STRIDE = 5 * GRID_STRIDE  # the teacher draws as well in ten such steps as in fifty
TRUE_MAX_TIMESTEP = 299  # up to it the target is the true image
OWN_SHARE = 0.5  # of those rows that have the student's own prediction under the noise
OWN_GAPS = (6, 14)  # grid steps between that prediction's timestep and the row's
TRAJECTORY_SHARE = 0.5  # of the other rows, in consistency distillation


class TrajectoryDistillation(Distillation):
    """The targets are the ends of a guided net's trajectories, and true images."""

    def __init__(
        self, teacher: Teacher, student: UNet2DConditionModel, guide: UNet2DConditionModel
    ) -> None:
        super().__init__(teacher, student)
        self.guide = guide.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature

    @torch.no_grad()
    def sample_noisy(self, batch: LatentBatch) -> NoisyBatch:
        noisy = super().sample_noisy(batch)
        is_own = torch.rand(len(noisy.x_t), device=noisy.x_t.device) < OWN_SHARE
        index = (is_own & (noisy.timesteps <= TRUE_MAX_TIMESTEP)).nonzero()[:, 0]
        if len(index):
            # The student's prediction from the doodle at an earlier step. The gap varies, as it
            # does with the strength and the number of steps of requests.
            rows = noisy.rows(index)
            gaps = torch.randint(*OWN_GAPS, rows.timesteps.shape, device=index.device)
            timesteps = rows.timesteps + gaps * GRID_STRIDE
            x_t = self.add_noise(batch.doodles[index], batch, timesteps)
            earlier = rows._replace(x_t=x_t, timesteps=timesteps)
            predicted = self.predict(self.ema, earlier, batch)
            noisy.x_t[index] = self.add_noise(predicted, batch, rows.timesteps)
        return noisy

    @torch.no_grad()
    def targets(self, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        targets = batch.latents.clone()
        index = (noisy.timesteps > TRUE_MAX_TIMESTEP).nonzero()[:, 0]
        if len(index):
            targets[index] = self.noisy_targets(noisy.rows(index), batch)
        return targets

    def noisy_targets(self, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        """Return the targets [B, 4, h, w] of rows above TRUE_MAX_TIMESTEP."""
        return self.trajectory_ends(noisy, batch)

    def trajectory_ends(self, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        """Return the ends [B, 4, h, w] of the guide's trajectories through `noisy`."""
        ends = noisy.x_t.clone()
        index = torch.arange(len(ends), device=ends.device)
        while len(index):
            noisy = self.guide_step(noisy, batch, DDIM_STRIDE)
            ends[index] = noisy.x_t
            is_running = noisy.timesteps >= 0
            index, noisy = index[is_running], noisy.rows(is_running)
        return ends

    def guide_step(self, noisy: NoisyBatch, batch: LatentBatch, stride: int) -> NoisyBatch:
        """Return `noisy` after a DDIM step of the guide."""
        x_0 = self.predict(self.guide, noisy, batch)
        previous = noisy.timesteps - stride
        x_t = self.schedule.ddim_step(noisy.x_t, x_0, noisy.timesteps, previous)
        return noisy._replace(x_t=x_t, timesteps=previous)


class ConsistencyDistillation(TrajectoryDistillation):
    """The targets are the average's predictions a step nearer, the ends, and true images."""

    def noisy_targets(self, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        targets = noisy.x_t.clone()
        is_end = torch.rand(len(targets), device=targets.device) < TRAJECTORY_SHARE
        for rows, target_of in ((is_end, self.trajectory_ends), (~is_end, self.next_predictions)):
            if rows.any():
                targets[rows] = target_of(noisy.rows(rows), batch)
        return targets

    def next_predictions(self, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        """Return the predictions [B, 4, h, w] of the average, one grid step nearer to the image."""
        return self.predict(self.ema, self.guide_step(noisy, batch, GRID_STRIDE), batch)
