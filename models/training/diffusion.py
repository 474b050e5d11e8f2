"""The maths of the noise: v-prediction, DDIM and the consistency boundary.

Rows of a batch may stand at different timesteps; every function broadcasts over them.

v-prediction: Salimans and Ho 2022 (arXiv 2202.00512); DDIM: Song et al. 2020 (arXiv
2010.02502); boundary condition: Luo et al. 2023 (arXiv 2310.04378, section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 1000
GRID = 50  # steps of the distilled grid: 19, 39, ... 999
STRIDE = STEPS // GRID
LAST_SHARE = 0.06  # of draws that are set to the end
SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0
DOUBT_FROM, DOUBT_RAMP, DOUBT_SHARE = 880, 100, 0.8  # timesteps, timesteps, share of rows
DOODLE_FROM, DOODLE_RAMP, DOODLE_SHARE = 250, 600, 0.5  # timesteps, timesteps, share of rows


def alphas_cumprod(device: torch.device) -> Tensor:
    """Return the signal's power [1000] under Stable Diffusion's scaled-linear betas."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float().to(device)


def rows(values: Tensor) -> Tensor:
    """View [B] as [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


def scales(powers: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the signal's and the noise's scale [B, 1, 1, 1] at timesteps [B]."""
    power = rows(powers[timesteps])
    return power.sqrt(), (1 - power).sqrt()


def noised(latents: Tensor, noise: Tensor, powers: Tensor, timesteps: Tensor) -> Tensor:
    """Return x_t [B, 4, h, w]."""
    signal, sigma = scales(powers, timesteps)
    return signal * latents + sigma * noise


def shown(latents: Tensor, doodles: Tensor, timesteps: Tensor) -> Tensor:
    """Return the pictures [B, 4, h, w] that lie under the noise, from which `latents` are asked.

    The service adds noise to what a person has drawn, not to what is to come of it. So the more
    noise there is, the more often it is the scene's doodle, up to half of the rows: the net
    learns to redraw a doodle in the style that the prompt names.

    And the schedule never reaches pure noise: 7 % of the signal's scale is left at t = 999, enough
    in 64 x 64 latents to tell the mean colour. At strength 1 the net must believe the prompt
    instead, so most rows near the end stand on a picture of another row. The doubt comes by
    degrees: one step before the end, what lies under the noise is still nearly what it was there.
    """
    count, device = len(latents), latents.device
    doodle_share = ((timesteps - DOODLE_FROM) / DOODLE_RAMP).clamp(0, DOODLE_SHARE)
    is_doodle = torch.rand(count, device=device) < doodle_share
    doubt_share = ((timesteps - DOUBT_FROM) / DOUBT_RAMP).clamp(0, DOUBT_SHARE)
    is_other = torch.rand(count, device=device) < doubt_share
    pictures = torch.where(rows(is_doodle), doodles, latents)
    return torch.where(rows(is_other), pictures.roll(1, 0), pictures)


def velocity(x_t: Tensor, latents: Tensor, powers: Tensor, timesteps: Tensor) -> Tensor:
    """Return the v that leads from x_t to `latents`: the inverse of `denoised`."""
    signal, sigma = scales(powers, timesteps)
    return (signal * x_t - latents) / sigma


def denoised(x_t: Tensor, v: Tensor, powers: Tensor, timesteps: Tensor) -> Tensor:
    signal, sigma = scales(powers, timesteps)
    return signal * x_t - sigma * v


def ddim_step(
    x_t: Tensor, x_0: Tensor, powers: Tensor, timesteps: Tensor, earlier: Tensor
) -> Tensor:
    """Return x at `earlier` by deterministic DDIM; below 0 that is x_0 itself."""
    signal, sigma = scales(powers, timesteps)
    noise = (x_t - signal * x_0) / sigma
    signal_to, sigma_to = scales(powers, earlier.clamp_min(0))
    moved = signal_to * x_0 + sigma_to * noise
    return torch.where(rows(earlier < 0), x_0, moved)


def draw_grid(count: int, device: torch.device, latest: int = STEPS - 1) -> Tensor:
    """Return timesteps [count] of the distilled grid up to `latest`, that one a little oftener."""
    last = (latest + 1) // STRIDE
    index = torch.randint(1, last + 1, (count,), device=device)
    index[torch.rand(count, device=device) < LAST_SHARE] = last
    return index * STRIDE - 1  # 19, 39, ... 999


def boundary(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Return c_skip and c_out [B, 1, 1, 1]: at t = 0 the consistency function is identity."""
    scaled = rows(timesteps.float()) * TIMESTEP_SCALING
    denominator = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / denominator, scaled / denominator.sqrt()


def guidance_embedding(w: Tensor, width: int) -> Tensor:
    """Return the sinusoidal embedding [B, width] of w = guidance - 1, as diffusers has it."""
    half = width // 2
    fall = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -fall).to(w.device)
    angles = (w.float() * 1000.0)[:, None] * frequencies[None]
    return torch.cat((angles.sin(), angles.cos()), 1)
