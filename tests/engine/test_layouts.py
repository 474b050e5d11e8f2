"""The checkpoints that people use, in tiny, against diffusers' own pipelines of their kind.

Those know no strength as an LCM does, so they are given our timesteps, and strength 1.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from PIL import Image

from models.lcm import timesteps
from models.loader import CheckpointFiles, load_pipeline
from models.pipeline import Pipeline
from service.protocol.jobs import Finished, Job, Pixels
from tests.support.checkpoints import (
    sdxl_unet,
    write_plain_checkpoint,
    write_sdxl_checkpoint,
    write_taesd,
)
from tests.support.engine_runs import levels_apart, make_engine, make_job, picture, run
from tests.support.loras import EVERYWHERE, random_factors, write_lora

CASES = [
    # negative prompt, steps, strength, guidance
    (None, 4, 0.6, 8.0),
    ("a green thing", 5, 1.0, 20.0),
]
Case = tuple[str | None, int, float, float]


def load(files: CheckpointFiles) -> Pipeline:
    return load_pipeline(files, device="cpu", dtype=torch.float32)


def job_of(case: Case, job_id: str = "job", **params: Any) -> Job:
    negative, steps, strength, guidance = case
    job = make_job(job_id, steps=steps, strength=strength, guidance=guidance)
    changed = dataclasses.replace(job.params, negative_prompt=negative, **params)
    return dataclasses.replace(job, params=changed)


def by_diffusers(oracle: Any, pipeline: Pipeline, job: Job) -> Pixels:
    """Refine with a pipeline of diffusers, made an LCM by its scheduler."""
    params = job.params
    oracle.scheduler = LCMScheduler.from_config(oracle.scheduler.config)
    oracle.set_progress_bar_config(disable=True)
    used = pipeline.used_guidance(params.guidance_scale)
    output = oracle(
        params.prompt,
        negative_prompt=params.negative_prompt,
        image=Image.fromarray(job.image),
        timesteps=timesteps(pipeline.schedule, params.num_inference_steps, params.strength),
        strength=1.0,
        guidance_scale=params.guidance_scale if used is None else used,
        generator=torch.Generator("cpu").manual_seed(params.seeds[0]),
    )
    return np.asarray(output.images[0])


def check(oracle: Any, pipeline: Pipeline, job: Job) -> Finished:
    outcome = run(make_engine(pipeline), [job])[job.id]
    theirs = by_diffusers(oracle, pipeline, job)
    assert theirs.std() > 1, "the oracle's picture is flat: nothing would be compared"
    assert levels_apart(picture(outcome), theirs) <= 1
    assert isinstance(outcome, Finished)
    return outcome


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFiles:
    """SD 1.5 with an LCM-LoRA over linear layers and convolutions, as the published one."""
    folder = write_plain_checkpoint(tmp_path_factory.mktemp("plain"))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    factors = {"unet": random_factors(unet, EVERYWHERE, rank=3)}
    lora = write_lora(tmp_path_factory.mktemp("lora") / "lora.safetensors", factors, "kohya", 2.0)
    return CheckpointFiles(folder, lora=lora)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFiles:
    return CheckpointFiles(write_sdxl_checkpoint(tmp_path_factory.mktemp("sdxl")))


@pytest.mark.parametrize("case", CASES)
def test_a_plain_checkpoint_with_an_lcm_lora(plain: CheckpointFiles, case: Case) -> None:
    """Fused at load, guided by doubled rows, guidance mapped to 1 to 2 and told."""
    oracle = StableDiffusionImg2ImgPipeline.from_pretrained(plain.folder, dtype=torch.float32)
    oracle.load_lora_weights(str(plain.lora))
    oracle.fuse_lora()
    outcome = check(oracle, load(plain), job_of(case))
    assert outcome.reads_negative_prompt
    assert outcome.guidance_scale is not None
    assert 1.0 <= outcome.guidance_scale <= 2.0


@pytest.mark.parametrize("case", CASES)
def test_sdxl_with_an_lcm_lora(sdxl: CheckpointFiles, case: Case, tmp_path: Path) -> None:
    """Two text encoders, pooled embeddings, sizes, and zeros where there is no negative prompt."""
    oracle = StableDiffusionXLImg2ImgPipeline.from_pretrained(sdxl.folder, dtype=torch.float32)
    factors = {"unet": random_factors(oracle.unet, EVERYWHERE, rank=3)}
    lora = write_lora(tmp_path / "lora.safetensors", factors, "diffusers")
    oracle.load_lora_weights(str(lora))
    oracle.fuse_lora()
    check(oracle, load(dataclasses.replace(sdxl, lora=lora)), job_of(case))


@pytest.mark.parametrize("case", CASES)
def test_sdxl_with_another_unet(sdxl: CheckpointFiles, case: Case, tmp_path: Path) -> None:
    """A UNet of its own repository with guidance embedding: rows are not doubled."""
    torch.manual_seed(5)
    sdxl_unet(time_cond_proj_dim=32).save_pretrained(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path)
    oracle = StableDiffusionXLImg2ImgPipeline.from_pretrained(
        sdxl.folder, unet=unet, dtype=torch.float32
    )
    pipeline = load(dataclasses.replace(sdxl, unet=tmp_path))
    assert pipeline.rows_per_row == 1
    outcome = check(oracle, pipeline, job_of(case))
    assert not outcome.reads_negative_prompt
    assert outcome.guidance_scale is None


def test_the_tiny_autoencoder_beside_the_own_one(plain: CheckpointFiles, tmp_path: Path) -> None:
    """`tiny` is what diffusers makes with TAESD in its place; without one the own is told."""
    files = dataclasses.replace(plain, tiny=write_taesd(tmp_path))
    vae = AutoencoderTiny.from_pretrained(tmp_path)
    oracle = StableDiffusionImg2ImgPipeline.from_pretrained(
        plain.folder, vae=vae, dtype=torch.float32
    )
    oracle.load_lora_weights(str(plain.lora))
    oracle.fuse_lora()
    job = job_of(CASES[0], autoencoder="tiny")
    assert check(oracle, load(files), job).autoencoder == "tiny"
    (outcome,) = run(make_engine(load(plain)), [job]).values()
    assert isinstance(outcome, Finished)
    assert outcome.autoencoder == "full"


def test_doubled_rows_share_a_forward_within_the_batch(plain: CheckpointFiles) -> None:
    """Of a batch of four UNet rows two jobs' rows take all; pictures are as alone."""
    pipeline = load(plain)
    jobs = [job_of(CASES[index % 2], f"job-{index}") for index in range(4)]
    engine = make_engine(pipeline, max_batch=4)
    outcomes = run(engine, jobs)
    assert engine.stats.max_batch_seen == 2
    for job in jobs:
        alone = run(make_engine(pipeline), [job])[job.id]
        assert levels_apart(picture(outcomes[job.id]), picture(alone)) <= 1
