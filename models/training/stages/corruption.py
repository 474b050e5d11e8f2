"""Training inputs: the latents under the noise, and the timesteps of a batch.

The service adds noise to what the user has drawn, and not to the image that should result. Under
more noise, more of the rows therefore have the doodle of the scene under the noise: the net learns
to redraw a doodle in the style of the prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.networks.noise import GRID_STRIDE, NUM_TIMESTEPS, per_row

# Shares of rows by timestep: the first timestep, the timesteps of the linear ramp, the last share.
DOODLE_RAMP = (250, 600, 0.5)
LOW_PASS_RAMP = (400, 400, 0.3)
OTHER_SCENE_RAMP = (880, 100, 0.8)
LOW_PASS_CELLS = 4  # along the shorter side
WARP, WARP_CELLS = 2.0, (6, 14)  # latents of displacement; cells along the shorter side
LOOSE_MAX_TIMESTEP = 899
LAST_SHARE = 0.2  # of draws that are set to the largest timestep


def corrupt(latents: Tensor, doodles: Tensor, posed: Tensor, timesteps: Tensor) -> Tensor:
    """Return the latents [B, 4, h, w] under the noise; the target is `latents`.

    Some rows are the scene's doodle. Some are low-pass filtered: a first step from noise, or a
    careless hand, makes a blot, and its form must come from the prompt.

    The schedule never reaches pure noise. 7 % of the signal's scale is left at t = 999: in 64 x 64
    latents this reveals the mean colour. At strength 1 the net must follow the prompt instead. Most
    posed rows [B] near the end therefore have another row's image under the noise; loose rows do
    not go that far (`max_timesteps`). The share rises gradually: one step before the end the image
    under the noise is still nearly the one at the end.
    """
    inputs = torch.where(_choose_rows(timesteps, DOODLE_RAMP), doodles, latents)
    inputs = torch.where(_choose_rows(timesteps, LOW_PASS_RAMP), low_pass(inputs), inputs)
    is_other = _choose_rows(timesteps, OTHER_SCENE_RAMP) & per_row(posed)
    return torch.where(is_other, inputs.roll(1, 0), inputs)


def _choose_rows(timesteps: Tensor, ramp: tuple[int, int, float]) -> Tensor:
    """Return a random mask [B, 1, 1, 1] whose share of rows follows a ramp over the timesteps."""
    start, length, share = ramp
    shares = ((timesteps - start) / length).clamp(0, share)
    return per_row(torch.rand(len(timesteps), device=timesteps.device) < shares)


def low_pass(latents: Tensor) -> Tensor:
    """Return latents [B, 4, h, w] without details under a quarter of the shorter side."""
    height, width = latents.shape[-2:]
    short = min(height, width)
    cells = (round(LOW_PASS_CELLS * height / short), round(LOW_PASS_CELLS * width / short))
    means = F.adaptive_avg_pool2d(latents, cells)
    return F.interpolate(means, (height, width), mode="bilinear", align_corners=False)


def warp(latents: Tensor) -> Tensor:
    """Return latents [B, 4, h, w] with distorted forms, as after an early step or in a sketch.

    A smooth displacement field of a few latents, with a random amplitude in each row.
    """
    (count, _, height, width), device = latents.shape, latents.device
    short, cells = min(height, width), int(torch.randint(*WARP_CELLS, ()))
    lattice = [round(cells * side / short) for side in (height, width)]
    amplitudes = per_row(torch.rand(count, device=device))
    moves = torch.randn(count, 2, *lattice, device=device) * amplitudes
    moves = WARP * F.interpolate(moves, (height, width), mode="bicubic", align_corners=False)
    identity = torch.eye(2, 3, device=device)[None]
    grid = F.affine_grid(identity, [1, 1, height, width], align_corners=False)
    spans = torch.tensor([width, height], device=device) / 2  # a grid goes from -1 to 1
    grid = grid + moves.permute(0, 2, 3, 1) / spans
    return F.grid_sample(latents, grid, padding_mode="border", align_corners=False)


def max_timesteps(posed: Tensor) -> Tensor:
    """Return the largest timestep [B] to train rows on; it is lower for loose scenes.

    At the end of the schedule only the prompt is left, and it does not say where a thing is.
    """
    return torch.where(posed, NUM_TIMESTEPS - 1, LOOSE_MAX_TIMESTEP)


def sample_grid(largest: Tensor) -> Tensor:
    """Return timesteps [B] of the distilled grid up to `largest` [B], which is drawn more often."""
    last = (largest + 1) // GRID_STRIDE
    index = (torch.rand(last.shape, device=largest.device) * last).long() + 1
    is_last = torch.rand(last.shape, device=largest.device) < LAST_SHARE
    return torch.where(is_last, last, index) * GRID_STRIDE - 1
