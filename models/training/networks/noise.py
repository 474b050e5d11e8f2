"""The noise schedule of the shipped checkpoint by rows: v-prediction, DDIM, the boundary condition.

Each row of a batch may have its own timestep. The coefficients are those of `models.lcm`.

v-prediction: Salimans and Ho 2022 (arXiv 2202.00512); DDIM: Song et al. 2020 (arXiv 2010.02502);
boundary condition: Luo et al. 2023 (arXiv 2310.04378, section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import lcm
from models.training.networks.architecture import GUIDANCE_WIDTH, build_scheduler

NUM_TIMESTEPS = 1000
GRID_SIZE = 50  # points of the distilled grid: 19, 39, ... 999
GRID_STRIDE = NUM_TIMESTEPS // GRID_SIZE


def per_row(values: Tensor) -> Tensor:
    """View [B] as [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


class NoiseSchedule(nn.Module):
    """The schedule's coefficients on a device. Timesteps are [B], latents [B, 4, h, w]."""

    alphas_cumprod: Tensor  # [T]
    coefficients: Tensor  # [T, 4]: sample and output for x_0, c_skip, c_out

    def __init__(self) -> None:
        super().__init__()
        self.lcm = lcm.LCMSchedule.from_config(build_scheduler().config)
        alphas = lcm.alphas_cumprod(self.lcm)
        steps = lcm.step_coefficients(self.lcm, alphas, range(NUM_TIMESTEPS))
        self.register_buffer("alphas_cumprod", alphas, persistent=False)
        self.register_buffer("coefficients", steps[:, :4], persistent=False)

    def scales(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scales of the signal and of the noise [B, 1, 1, 1]."""
        alphas = per_row(self.alphas_cumprod[timesteps])
        return alphas.sqrt(), (1 - alphas).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t."""
        return lcm.add_noise(latents, noise, self.alphas_cumprod[timesteps])

    def predict_x0(self, x_t: Tensor, v: Tensor, timesteps: Tensor) -> Tensor:
        """Return the x_0 that a predicted v means."""
        sample, output, _, _ = self._coefficients(timesteps)
        return sample * x_t + output * v

    def velocity(self, x_t: Tensor, x_0: Tensor, timesteps: Tensor) -> Tensor:
        """Return the v that leads from x_t to x_0: the inverse of `predict_x0`."""
        sample, output, _, _ = self._coefficients(timesteps)
        return (x_0 - sample * x_t) / output

    def consistency(self, x_t: Tensor, v: Tensor, timesteps: Tensor) -> Tensor:
        """Return c_skip * x_t + c_out * x_0: the identity at t = 0."""
        _, _, c_skip, c_out = self._coefficients(timesteps)
        return c_skip * x_t + c_out * self.predict_x0(x_t, v, timesteps)

    def ddim_step(self, x_t: Tensor, x_0: Tensor, timesteps: Tensor, previous: Tensor) -> Tensor:
        """Return x at the timesteps `previous` [B] by deterministic DDIM; x_0 below 0."""
        signal, sigma = self.scales(timesteps)
        noise = (x_t - signal * x_0) / sigma
        stepped = self.add_noise(x_0, noise, previous.clamp_min(0))
        return torch.where(per_row(previous < 0), x_0, stepped)

    def _coefficients(self, timesteps: Tensor) -> tuple[Tensor, ...]:
        return self.coefficients[timesteps][..., None, None, None].unbind(1)


def embed_guidance(w: Tensor) -> Tensor:
    """Return the embedding [B, GUIDANCE_WIDTH] of w = guidance - 1 [B]."""
    return lcm.guidance_embedding([1 + value for value in w.tolist()], GUIDANCE_WIDTH).to(w.device)
