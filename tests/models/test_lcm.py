"""The maths by row against diffusers' scheduler and pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import LatentConsistencyModelImg2ImgPipeline, LCMScheduler

from models.lcm import (
    LCMSchedule,
    add_noise,
    alphas_cumprod,
    guidance_embedding,
    lcm_step,
    num_steps_run,
    step_coefficients,
    timesteps,
)

GRID = [(steps, hundredths / 100) for steps in range(4, 17) for hundredths in range(10, 101)]


def make_schedule(**changes: Any) -> tuple[LCMSchedule, Any]:
    scheduler = LCMScheduler(**changes)
    return LCMSchedule.from_config(scheduler.config), scheduler


def test_every_pair_of_steps_and_strength_has_a_schedule() -> None:
    """All 1,183 pairs run, as diffusers schedules them where it does not raise."""
    schedule, scheduler = make_schedule()
    num_raised = 0
    for steps, strength in GRID:
        ours = timesteps(schedule, steps, strength)
        assert ours == sorted(set(ours), reverse=True)
        assert len(ours) == num_steps_run(schedule, steps, strength)
        try:
            scheduler.set_timesteps(steps, strength=strength)
        except ValueError:
            num_raised += 1
            assert len(ours) == int(50 * strength) < steps
        else:
            assert ours == scheduler.timesteps.tolist()
    assert (len(GRID), num_raised) == (1183, 132)


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
def test_alphas_equal_diffusers(beta_schedule: str) -> None:
    """The noise schedule is diffusers' to the last bit or so."""
    schedule, scheduler = make_schedule(beta_schedule=beta_schedule)
    torch.testing.assert_close(
        alphas_cumprod(schedule), scheduler.alphas_cumprod, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip_sample", [False, True])
def test_rows_at_different_timesteps_step_as_alone(
    prediction_type: str, *, clip_sample: bool
) -> None:
    """One call over rows at mixed timesteps equals the scheduler run on each row alone."""
    schedule, scheduler = make_schedule(prediction_type=prediction_type, clip_sample=clip_sample)
    alphas = alphas_cumprod(schedule)
    generator = torch.Generator().manual_seed(0)
    sample, output, noise = torch.randn(3, 8, 4, 8, 8, generator=generator)
    coefficients, expected = [], []
    for row, (steps, strength, step) in enumerate(
        [(4, 1.0, 0), (4, 1.0, 3), (8, 0.5, 2), (16, 0.9, 15), (5, 0.1, 4), (7, 0.3, 1)]
    ):
        plan = timesteps(schedule, steps, strength)
        coefficients.append(step_coefficients(schedule, alphas, plan)[step])
        scheduler.set_timesteps(steps, strength=strength)
        scheduler.set_begin_index(step)
        expected.append(_stepped(scheduler, output[row], plan[step], sample[row], noise[row]))
    ours = lcm_step(
        output[:6],
        sample[:6],
        noise[:6],
        torch.stack(coefficients),
        clean=torch.full_like(sample[:6], torch.nan),  # nothing of it may show
        mask=torch.ones(6, 1, 8, 8),
        clip_sample_range=schedule.clip_sample_range,
    )
    torch.testing.assert_close(ours, torch.stack(expected), rtol=1e-4, atol=1e-5)


def _stepped(
    scheduler: Any,
    output: torch.Tensor,
    timestep: int,
    sample: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """Step diffusers' scheduler with a given noise: it draws its own, of which it is linear."""
    seed = torch.Generator().manual_seed(1)
    drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    after: torch.Tensor
    after, denoised = scheduler.step(
        output, torch.tensor(timestep), sample, generator=seed, return_dict=False
    )
    if torch.equal(after, denoised):
        return after
    index = scheduler.step_index
    beta = 1 - scheduler.alphas_cumprod[scheduler.timesteps[index]]
    shifted: torch.Tensor = after + beta.sqrt() * (noise - drawn)
    return shifted


def test_add_noise_equals_diffusers() -> None:
    """Rows are noised to their own timesteps as the scheduler does."""
    schedule, scheduler = make_schedule()
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([999, 499, 19])
    ours = add_noise(clean, noise, alphas_cumprod(schedule)[at])
    torch.testing.assert_close(ours, scheduler.add_noise(clean, noise, at))


def test_guidance_embedding_equals_diffusers_and_casts_last() -> None:
    """The embedding of each row is diffusers' own; a row does not depend on its neighbours."""
    scales = [0.5, 1.0, 1.999, 8.0, 20.0]
    embed: Any = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding
    for dim in (32, 33, 256):
        ours = guidance_embedding(scales, dim)
        theirs = torch.cat([embed(None, torch.tensor([scale - 1]), dim) for scale in scales])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    "setting",
    [
        {"thresholding": True},
        {"rescale_betas_zero_snr": True},
        {"trained_betas": [0.1]},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"prediction_type": "flow"},
    ],
)
def test_unknown_settings_are_refused(setting: dict[str, Any]) -> None:
    """A scheduler setting that is not followed is refused by name, never ignored."""
    config = {**LCMScheduler().config, **setting}
    with pytest.raises(ValueError, match=next(iter(setting))):
        LCMSchedule.from_config(config)
