"""The teacher's images, compared with diffusers' pipeline."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline

from models.training.evaluation.sampling import sample_teacher
from models.training.loop.precision import mixed
from models.training.networks.architecture import build_scheduler
from models.training.networks.tokenizer import build_tokenizer
from models.training.stages.distillation import classifier_free_guidance
from models.training.stages.warm_start import teacher_from_pocket
from models.training.train import POCKET

STEPS, GUIDANCE, PROMPT = 4, 3.0, "a red boat"


def test_teacher_samples_as_diffusers() -> None:
    """The same noise and prompt give the image of StableDiffusionPipeline with DDIM."""
    teacher = teacher_from_pocket(POCKET).eval()
    vae = AutoencoderTiny.from_pretrained(POCKET / "vae")
    with torch.no_grad():
        ours = sample_teacher(
            teacher, vae, [PROMPT], (256, 256),
            steps=STEPS, guidance=GUIDANCE, guide=classifier_free_guidance,
        )  # fmt: skip
    scheduler = DDIMScheduler.from_config(
        build_scheduler().config, steps_offset=1, timestep_spacing="trailing"
    )
    pipeline = StableDiffusionPipeline(
        vae, teacher.text, build_tokenizer(), teacher.unet, scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with mixed(torch.device("cpu")):
        theirs = pipeline(
            PROMPT, latents=noise, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
            output_type="pt",
        ).images  # fmt: skip
    assert ours.std() > 0.05
    assert (ours - theirs).abs().mean() < 0.02
