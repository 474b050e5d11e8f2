"""The engine against diffusers' own img2img pipeline: same weights, seed and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.checkpoints.catalog import find_checkpoint
from models.checkpoints.hub import local_folder
from service.protocol.jobs import Job, Pixels
from tests.support.checkpoints import load_oracle, write_checkpoint
from tests.support.engine_runs import levels_apart, load, make_engine, make_job, picture, run

TABLE = [
    # height, width, steps, strength, guidance, seed
    (512, 512, 4, 0.5, 8.0, 7),
    (512, 512, 8, 1.0, 0.5, 0),
    (512, 512, 16, 0.58, 20.0, 9_999_999_998),
    (512, 512, 5, 0.1, 1.0, 123),
    (512, 640, 4, 0.3, 4.5, 1),
    (640, 512, 7, 0.77, 12.0, 2),
    (1024, 512, 4, 0.9, 8.0, 2**32 + 5),
]


def refined_by_diffusers(oracle: Any, job: Job) -> Pixels:
    params = job.params
    output = oracle(
        params.prompt,
        image=Image.fromarray(job.image),
        num_inference_steps=params.num_inference_steps,
        strength=params.strength,
        guidance_scale=params.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(params.seeds[0]),
    )
    return np.asarray(output.images[0])


def job_of(row: tuple[int, int, int, float, float, int]) -> Job:
    height, width, steps, strength, guidance, seed = row
    return make_job(
        height=height, width=width, steps=steps, strength=strength, guidance=guidance, seeds=(seed,)
    )


@pytest.mark.parametrize("vae", ["tiny", "kl"])
@pytest.mark.parametrize("row", TABLE)
def test_engine_equals_diffusers(
    vae: str, row: tuple[int, int, int, float, float, int], request: pytest.FixtureRequest
) -> None:
    """A picture is within 1 level of diffusers' own, with and without a posterior."""
    folder: Path = request.getfixturevalue(f"{vae}_checkpoint")
    job = job_of(row)
    ours = picture(run(make_engine(load(folder)), [job])["job"])
    theirs = refined_by_diffusers(load_oracle(folder), job)
    assert theirs.std() > 1, "the oracle's picture is flat: nothing would be compared"
    assert levels_apart(ours, theirs) <= 1


@pytest.mark.parametrize("row", [TABLE[0], TABLE[1], TABLE[4]])
def test_the_bundled_checkpoint_equals_diffusers(
    row: tuple[int, int, int, float, float, int],
) -> None:
    """What a newcomer gets is what bare diffusers makes of the same folder."""
    folder = local_folder(find_checkpoint("pocket"))
    job = job_of(row)
    ours = picture(run(make_engine(load(folder)), [job])["job"])
    assert levels_apart(ours, refined_by_diffusers(load_oracle(folder), job)) <= 1


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_prediction_types_equal_diffusers(prediction_type: str, tmp_path: Path) -> None:
    """Checkpoints that predict velocity or the sample are followed as diffusers does."""
    folder = write_checkpoint(tmp_path, prediction_type=prediction_type)
    job = make_job(steps=4, strength=0.8)
    ours = picture(run(make_engine(load(folder)), [job])["job"])
    assert levels_apart(ours, refined_by_diffusers(load_oracle(folder), job)) <= 1
