"""The maths of latent consistency models, a row per request and without state.

Sources: Luo et al., "Latent Consistency Models" (arXiv 2310.04378) for the multistep sampler
and the guidance embedding; Song et al., "Consistency Models" (arXiv 2303.01469) for the
boundary condition. diffusers' `LCMScheduler` is the oracle in tests: it keeps the state of one
generation, so that requests at different timesteps cannot share it; the functions here can.

Key of shapes: B rows, T training timesteps, N steps of one row, C h w of the latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PredictionType = Literal["epsilon", "v_prediction", "sample"]

SIGMA_DATA = 0.5
"""Standard deviation of the data in the boundary condition (arXiv 2303.01469, appendix C)."""

NUM_COEFFICIENTS = 6
"""Columns of `step_coefficients`."""

_REFUSED = ("thresholding", "rescale_betas_zero_snr", "trained_betas")


@dataclass(frozen=True)
class LCMSchedule:
    """What of a checkpoint's scheduler config decides its pictures."""

    num_train_timesteps: int
    original_inference_steps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    prediction_type: PredictionType
    timestep_scaling: float
    clip_sample_range: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LCMSchedule:
        """Read a diffusers scheduler config.

        Raises ValueError for a setting that this sampler does not follow: a picture made in
        spite of it would be wrong without a word.
        """
        for name in _REFUSED:
            if config.get(name):
                raise ValueError(f"the scheduler's {name} is not supported")
        if config["beta_schedule"] not in {"linear", "scaled_linear"}:
            raise ValueError(
                f"the scheduler's beta_schedule {config['beta_schedule']!r} is unknown"
            )
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in get_args(PredictionType):
            raise ValueError(f"the scheduler's prediction_type {prediction_type!r} is unknown")
        clipped = config.get("clip_sample", False)
        return cls(
            num_train_timesteps=config["num_train_timesteps"],
            original_inference_steps=config.get("original_inference_steps", 50),
            beta_start=config["beta_start"],
            beta_end=config["beta_end"],
            beta_schedule=config["beta_schedule"],
            prediction_type=prediction_type,
            timestep_scaling=config.get("timestep_scaling", 10.0),
            clip_sample_range=config.get("clip_sample_range", 1.0) if clipped else None,
        )


def alphas_cumprod(schedule: LCMSchedule) -> torch.Tensor:
    """Return the cumulative signal variance of every training timestep, fp32 [T]."""
    power = 0.5 if schedule.beta_schedule == "scaled_linear" else 1.0
    betas = torch.linspace(
        schedule.beta_start**power,
        schedule.beta_end**power,
        schedule.num_train_timesteps,
        dtype=torch.float32,
    ) ** (1 / power)
    return torch.cumprod(1.0 - betas, dim=0)  # [T]


def num_steps_run(schedule: LCMSchedule, num_inference_steps: int, strength: float) -> int:
    """Return how many steps a request runs: as asked, unless strength leaves fewer.

    Strength trims the grid that the model was distilled on, not the count of steps. Where
    fewer points are left than steps were asked for, every point left is run (diffusers raises).
    """
    return min(num_inference_steps, _grid_size(schedule, strength))


def timesteps(schedule: LCMSchedule, num_inference_steps: int, strength: float) -> list[int]:
    """Return the timesteps of one request, descending, `num_steps_run` of them.

    Evenly spread over the part of the distilled grid that `strength` (0 to 1) leaves.
    """
    stride = schedule.num_train_timesteps // schedule.original_inference_steps
    size = _grid_size(schedule, strength)
    num_steps = num_steps_run(schedule, num_inference_steps, strength)
    indices = np.floor(np.linspace(0, size, num=num_steps, endpoint=False)).astype(int)
    return [int((size - index) * stride - 1) for index in indices]


def _grid_size(schedule: LCMSchedule, strength: float) -> int:
    # The float product is cut as diffusers cuts it: int(50 * 0.58) is 28.
    return max(1, int(schedule.original_inference_steps * strength))


def boundary_scalings(timestep: int, timestep_scaling: float) -> tuple[float, float]:
    """Return (c_skip, c_out), which make the model the identity at timestep 0."""
    scaled = timestep * timestep_scaling
    variance = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / variance, scaled / math.sqrt(variance)


def step_coefficients(
    schedule: LCMSchedule, alphas: torch.Tensor, steps: Sequence[int]
) -> torch.Tensor:
    """Return the six numbers of each step of one request, fp32 [N, 6].

    `alphas` is `alphas_cumprod`, `steps` the timesteps. The columns are what `lcm_step`
    multiplies with: sample and output for the predicted x_0, c_skip, c_out, and denoised and
    noise for the next latents. At the last step the next latents are the denoised ones.
    """
    table = torch.empty(len(steps), NUM_COEFFICIENTS, dtype=torch.float32)  # [N, 6]
    for row, timestep in enumerate(steps):
        c_skip, c_out = boundary_scalings(timestep, schedule.timestep_scaling)
        is_last = row == len(steps) - 1
        alpha_next = 1.0 if is_last else alphas[steps[row + 1]].item()
        table[row] = torch.tensor(
            [
                *_x0_coefficients(schedule.prediction_type, alphas[timestep].item()),
                c_skip,
                c_out,
                math.sqrt(alpha_next),
                math.sqrt(1.0 - alpha_next),
            ],
            dtype=torch.float64,
        )
    return table


def _x0_coefficients(prediction_type: PredictionType, alpha: float) -> tuple[float, float]:
    """Return (a, b) of x_0 = a * sample + b * model output, at signal variance alpha."""
    signal, noise = math.sqrt(alpha), math.sqrt(1.0 - alpha)
    if prediction_type == "epsilon":
        return 1.0 / signal, -noise / signal
    if prediction_type == "v_prediction":
        return signal, -noise
    return 0.0, 1.0


def lcm_step(
    model_output: torch.Tensor,
    latents: torch.Tensor,
    noise: torch.Tensor,
    coefficients: torch.Tensor,
    *,
    clean: torch.Tensor,
    mask: torch.Tensor,
    clip_sample_range: float | None = None,
) -> torch.Tensor:
    """Take one multistep consistency step on rows that may stand at different timesteps.

    `model_output`, `latents`, `noise` and `clean` are [B, C, h, w], `coefficients` [B, 6] of
    `step_coefficients`. Where `mask` [B, 1, h, w] is 0 the prediction is replaced by the picture's
    own `clean` latents, at every step: inpainting by latent blending (arXiv 2206.02779). Computes
    in fp32 and returns the next latents [B, C, h, w] in the dtype of `latents` (algorithm 3 of
    arXiv 2310.04378).
    """
    a, b, c_skip, c_out, to_denoised, to_noise = coefficients.float()[..., None, None, None].unbind(
        1
    )
    sample = latents.float()
    x0 = a * sample + b * model_output.float()  # [B, C, h, w]
    if clip_sample_range is not None:
        x0 = x0.clamp(-clip_sample_range, clip_sample_range)
    denoised = torch.where(mask > 0, c_out * x0 + c_skip * sample, clean.float())
    return (to_denoised * denoised + to_noise * noise.float()).to(latents.dtype)


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Bring clean latents [B, C, h, w] to the signal variance `alpha` [B]; fp32 inside."""
    alpha = alpha.float()[:, None, None, None]
    return (alpha.sqrt() * latents.float() + (1.0 - alpha).sqrt() * noise.float()).to(latents.dtype)


def guidance_embedding(guidance_scale: Sequence[float], dim: int) -> torch.Tensor:
    """Embed w = guidance - 1 of each row as sines and cosines of 1000 w, fp32 [B, dim].

    The formula is that of VDM's timestep embedding, as in diffusers'
    `get_guidance_scale_embedding`. Cast the result, never w: bf16 turns 999 into 1000.
    """
    w = torch.tensor([scale - 1 for scale in guidance_scale], dtype=torch.float32) * 1000.0
    half = dim // 2
    exponent = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -exponent)
    angles = w[:, None] * frequencies[None, :]  # [B, dim / 2]
    embedding = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
    return torch.nn.functional.pad(embedding, (0, dim % 2))  # [B, dim]
