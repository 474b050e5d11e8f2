"""The noise schedule, compared with diffusers' schedulers."""

from __future__ import annotations

import torch
from diffusers import LatentConsistencyModelImg2ImgPipeline

from models.training.networks.architecture import build_scheduler
from models.training.networks.noise import NoiseSchedule, embed_guidance


def test_alphas() -> None:
    """The schedule is that of the shipped scheduler."""
    theirs = build_scheduler().alphas_cumprod
    torch.testing.assert_close(NoiseSchedule().alphas_cumprod, theirs, rtol=1e-4, atol=1e-6)


def test_velocity_inverts_prediction() -> None:
    """V leads from x_t to the image, also with another image under the noise."""
    schedule, t = NoiseSchedule(), torch.tensor([3, 500, 999])
    latents, noise = torch.randn(2, 3, 4, 8, 8).unbind()
    x_t = schedule.add_noise(latents.roll(1, 0), noise, t)
    v = schedule.velocity(x_t, latents, t)
    torch.testing.assert_close(schedule.predict_x0(x_t, v, t), latents, rtol=1e-3, atol=1e-4)


def test_consistency_is_the_last_lcm_step() -> None:
    """The boundary condition gives the last step of diffusers' LCMScheduler."""
    scheduler = build_scheduler()
    scheduler.set_timesteps(1)
    t = scheduler.timesteps
    x_t, v = torch.randn(2, 1, 4, 8, 8).unbind()
    theirs = scheduler.step(v, t[0], x_t, return_dict=False)[1]
    ours = NoiseSchedule().consistency(x_t, v, t)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_ddim_step() -> None:
    """A step below t = 0 gives x_0, and a step to the same timestep changes nothing."""
    x_t, x_0 = torch.randn(2, 2, 4, 8, 8).unbind()
    t, previous = torch.tensor([19, 519]), torch.tensor([-1, 519])
    stepped = NoiseSchedule().ddim_step(x_t, x_0, t, previous)
    torch.testing.assert_close(stepped[0], x_0[0])
    torch.testing.assert_close(stepped[1], x_t[1], rtol=1e-4, atol=1e-4)


def test_guidance_embedding() -> None:
    """The embedding of w is that of the img2img pipeline."""
    w = torch.tensor([-0.5, 0.0, 7.0, 19.0])
    theirs = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding(None, w, 256)
    torch.testing.assert_close(embed_guidance(w), theirs)
