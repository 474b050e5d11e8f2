"""The maths of the noise: v-prediction, DDIM and the consistency boundary.

Rows of a batch may stand at different timesteps; every function broadcasts over them.

v-prediction: Salimans and Ho 2022 (arXiv 2202.00512); DDIM: Song et al. 2020 (arXiv
2010.02502); boundary condition: Luo et al. 2023 (arXiv 2310.04378, section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

STEPS = 1000
GRID = 50  # steps of the distilled grid: 19, 39, ... 999
STRIDE = STEPS // GRID
LAST_SHARE = 0.2  # of draws that are set to the end
SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0
DOUBT_FROM, DOUBT_RAMP, DOUBT_SHARE = 880, 100, 0.8  # timesteps, timesteps, share of rows
DOODLE_FROM, DOODLE_RAMP, DOODLE_SHARE = 250, 600, 0.5  # timesteps, timesteps, share of rows
VAGUE_FROM, VAGUE_RAMP, VAGUE_SHARE = 400, 400, 0.3  # timesteps, timesteps, share of rows
VAGUE_CELLS = 4  # along the shorter side of what a vague picture still tells
WARP, WARP_CELLS = 2.0, (6, 14)  # latents that a point moves by; cells that move together
LOOSE_LATEST = 899  # timestep, of scenes that are not posed


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


def shown(latents: Tensor, doodles: Tensor, posed: Tensor, timesteps: Tensor) -> Tensor:
    """Return the pictures [B, 4, h, w] that lie under the noise, from which `latents` are asked.

    The service adds noise to what a person has drawn, not to what is to come of it. So the more
    noise there is, the more often it is the scene's doodle, up to half of the rows: the net
    learns to redraw a doodle in the style that the prompt names. And at times it is vague: what
    a first step from noise makes, or a careless hand, is a blot, whose form the prompt must give.

    And the schedule never reaches pure noise: 7 % of the signal's scale is left at t = 999, enough
    in 64 x 64 latents to tell the mean colour. At strength 1 the net must believe the prompt
    instead, so most posed rows [B] near the end stand on a picture of another row (loose ones do
    not come there, see `latest_of`). The doubt comes by degrees: one step before the end, what
    lies under the noise is still nearly what it was there.
    """
    pictures = torch.where(
        _some(timesteps, DOODLE_FROM, DOODLE_RAMP, DOODLE_SHARE), doodles, latents
    )
    is_vague = _some(timesteps, VAGUE_FROM, VAGUE_RAMP, VAGUE_SHARE)
    pictures = torch.where(is_vague, vague(pictures), pictures)
    is_other = _some(timesteps, DOUBT_FROM, DOUBT_RAMP, DOUBT_SHARE) & rows(posed)
    return torch.where(is_other, pictures.roll(1, 0), pictures)


def _some(timesteps: Tensor, start: int, ramp: int, share: float) -> Tensor:
    """Draw which rows [B, 1, 1, 1] are meant: none up to `start`, then more, up to a share."""
    shares = ((timesteps - start) / ramp).clamp(0, share)
    return rows(torch.rand(len(timesteps), device=timesteps.device) < shares)


def vague(pictures: Tensor) -> Tensor:
    """Return latents [B, 4, h, w] without what is smaller than a quarter of the shorter side."""
    height, width = pictures.shape[-2:]
    short = min(height, width)
    cells = (round(VAGUE_CELLS * height / short), round(VAGUE_CELLS * width / short))
    few = F.adaptive_avg_pool2d(pictures, cells)
    return F.interpolate(few, (height, width), mode="bilinear", align_corners=False)


def warped(pictures: Tensor) -> Tensor:
    """Return latents [B, 4, h, w] with forms as an early step or a careless hand draws them.

    Every point moves a few latents at most, and near ones together; of some rows none does.
    """
    (count, _, height, width), device = pictures.shape, pictures.device
    short, cells = min(height, width), int(torch.randint(*WARP_CELLS, ()))
    few = [round(cells * side / short) for side in (height, width)]
    moves = torch.randn(count, 2, *few, device=device) * rows(torch.rand(count, device=device))
    moves = WARP * F.interpolate(moves, (height, width), mode="bicubic", align_corners=False)
    whole = torch.eye(2, 3, device=device)[None]
    still = F.affine_grid(whole, [1, 1, height, width], align_corners=False)
    spans = torch.tensor([width, height], device=device) / 2  # a grid goes from -1 to 1
    moved = still + moves.permute(0, 2, 3, 1) / spans
    return F.grid_sample(pictures, moved, padding_mode="border", align_corners=False)


def latest_of(posed: Tensor) -> Tensor:
    """Return the last timestep [B] to learn rows from: rows that are not posed [B] end sooner.

    At the very end there is nothing but the prompt to go by, and it does not say where a thing is.
    """
    return torch.where(posed, STEPS - 1, LOOSE_LATEST)


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


def draw_grid(latest: Tensor) -> Tensor:
    """Return timesteps [B] of the distilled grid up to `latest` [B], that one a little oftener."""
    last = (latest + 1) // STRIDE
    index = (torch.rand(last.shape, device=latest.device) * last).long() + 1
    is_last = torch.rand(last.shape, device=latest.device) < LAST_SHARE
    return torch.where(is_last, last, index) * STRIDE - 1  # 19, 39, ... 999


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
