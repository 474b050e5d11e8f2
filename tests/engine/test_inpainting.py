"""Inpainting in the engine, against a loop written out from its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler

from models.pipeline import Pipeline
from models.runtime.packing import to_uint8
from service.protocol.jobs import Job, Pixels
from tests.support.engine_runs import SIDE, levels_apart, load, make_engine, make_job, picture, run


def box_mask() -> Pixels:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[37:90, 20:75] = 255  # not on the grid of the latents
    return mask


def reference(pipeline: Pipeline, job: Job) -> Pixels:
    """Blend by hand: after each prediction the latents outside the mask are the picture's own."""
    assert job.mask is not None
    params = job.params
    generator = torch.Generator().manual_seed(params.seeds[0])
    shape = (1, *pipeline.latent_shape(params.height, params.width))
    scheduler = LCMScheduler()
    scheduler.set_timesteps(params.num_inference_steps, strength=params.strength)
    posterior = (
        torch.randn(shape, generator=generator)
        if pipeline.autoencoders["full"].has_posterior
        else None
    )
    clean = pipeline.encode_image(torch.from_numpy(job.image)[None], posterior)
    noise = torch.randn(shape, generator=generator)
    latents = scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
    cells = job.mask.reshape(shape[2], 8, shape[3], 8).max(axis=(1, 3)) > 0
    repainted = torch.from_numpy(cells)[None, None]
    prompt = pipeline.encode_prompt(params.prompt)
    row = pipeline.condition(prompt, params.guidance_scale, params.height, params.width)
    conditioning = row.map(lambda part: part[None])
    for index, timestep in enumerate(scheduler.timesteps):
        output = pipeline.predict_noise(latents, timestep[None], conditioning)
        _, denoised = scheduler.step(
            output, timestep, latents, generator=torch.Generator(), return_dict=False
        )
        latents = torch.where(repainted, denoised, clean)
        if index + 1 < len(scheduler.timesteps):
            noise = torch.randn(shape, generator=generator)
            latents = scheduler.add_noise(latents, noise, scheduler.timesteps[index + 1 :][:1])
    return to_uint8(pipeline.decode_latents(latents))[0].numpy()


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "kl_checkpoint"])
@pytest.mark.parametrize(("steps", "strength"), [(4, 0.5), (7, 1.0)])
def test_inpainting_equals_the_written_out_loop(
    checkpoint: str, steps: int, strength: float, request: pytest.FixtureRequest
) -> None:
    """The engine's closed form of blending is the definition, within 1 level."""
    pipeline = load(request.getfixturevalue(checkpoint))
    job = make_job(steps=steps, strength=strength, mask=box_mask())
    ours = picture(run(make_engine(pipeline), [job])["job"])
    assert levels_apart(ours, reference(pipeline, job)) <= 1


def test_a_white_mask_is_plain_img2img_and_a_black_one_returns_the_picture(
    tiny_checkpoint: Path,
) -> None:
    """White repaints all as without a mask; black gives what the autoencoder makes of the input."""
    pipeline = load(tiny_checkpoint)
    white, black = np.full((SIDE, SIDE), 255, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    plain = picture(run(make_engine(pipeline), [make_job()])["job"])
    whole = picture(run(make_engine(pipeline), [make_job(mask=white)])["job"])
    np.testing.assert_array_equal(whole, plain)
    job = make_job(mask=black, strength=1.0)
    clean = pipeline.encode_image(torch.from_numpy(job.image)[None], None)
    kept = to_uint8(pipeline.decode_latents(clean))[0].numpy()
    assert levels_apart(picture(run(make_engine(pipeline), [job])["job"]), kept) <= 1


def test_inpainting_shares_batches_with_others(tiny_checkpoint: Path) -> None:
    """With and without a mask, rows share a forward, and each is as alone."""
    pipeline = load(tiny_checkpoint)
    jobs = [
        make_job("masked", mask=box_mask(), seeds=(1,)),
        make_job("plain", seeds=(2,)),
        make_job("other mask", mask=255 - box_mask(), seeds=(3,)),
        make_job("plain too", seeds=(4,), steps=6),
    ]
    engine = make_engine(pipeline, max_batch=4)
    together = run(engine, jobs)
    assert engine.stats.max_batch_seen == 4
    for job in jobs:
        alone = run(make_engine(pipeline), [job])[job.id]
        assert levels_apart(picture(together[job.id]), picture(alone)) <= 1
