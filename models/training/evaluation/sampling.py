"""Images of the shipped folder in bare diffusers, and of the teacher."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import LatentConsistencyModelImg2ImgPipeline
from torch import Tensor
from tqdm import tqdm

from models.training.loop.precision import mixed
from models.training.networks.noise import NUM_TIMESTEPS, NoiseSchedule
from models.training.networks.tokenizer import tokenize
from models.training.stages.autoencoder import decode
from models.training.stages.distillation import rescaled_guidance
from models.training.stages.teacher import Teacher

BATCH_SIZE = 8
Guide = Callable[[Tensor, Tensor, Tensor], Tensor]


def load_pipeline(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> LatentConsistencyModelImg2ImgPipeline:
    """Load the folder with diffusers' pipeline and none of this project's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = LatentConsistencyModelImg2ImgPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def refine(
    pipeline: LatentConsistencyModelImg2ImgPipeline,
    prompts: Sequence[str],
    images: Tensor,
    *,
    strength: float,
    guidance: float,
    steps: int = 4,
    seed: int = 0,
) -> Tensor:
    """Refine images [B, 3, H, W] in 0..1, with a seed for each row: [B, 3, H, W]."""
    refined = []
    for start in tqdm(range(0, len(prompts), BATCH_SIZE), desc=f"strength {strength}", leave=False):
        batch = list(prompts[start : start + BATCH_SIZE])
        generators = [torch.Generator().manual_seed(seed + start + n) for n in range(len(batch))]
        output = pipeline(
            prompt=batch,
            image=images[start : start + BATCH_SIZE],
            strength=strength,
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=generators,
            output_type="np",
        ).images
        refined.append(torch.from_numpy(np.asarray(output)).permute(0, 3, 1, 2).float())
    return torch.cat(refined)


@torch.no_grad()
def sample_teacher(
    teacher: Teacher,
    vae: torch.nn.Module,
    prompts: Sequence[str],
    shape: tuple[int, int],
    *,
    steps: int,
    guidance: float,
    seed: int = 0,
    guide: Guide = rescaled_guidance,
) -> Tensor:
    """Sample the teacher from noise by DDIM: [B, 3, H, W].

    `guide` is `rescaled_guidance`, from which the student learned, or `classifier_free_guidance`.
    """
    device = next(teacher.parameters()).device
    schedule = NoiseSchedule().to(device)
    grid = [NUM_TIMESTEPS - NUM_TIMESTEPS * n // steps - 1 for n in range(steps)]
    images = []
    for start in tqdm(range(0, len(prompts), BATCH_SIZE), desc=f"teacher {steps}", leave=False):
        batch = list(prompts[start : start + BATCH_SIZE])
        rng = torch.Generator().manual_seed(seed + start)
        x = torch.randn(len(batch), 4, shape[0] // 8, shape[1] // 8, generator=rng).to(device)
        w = torch.full((len(batch),), guidance - 1, device=device)
        with mixed(device):
            text = teacher.encode_text(torch.tensor(tokenize(batch), device=device))
            empty = teacher.encode_text(torch.tensor(tokenize([""]), device=device))
        embeddings = torch.cat((text, empty.expand_as(text)))
        for timestep, previous in zip(grid, [*grid[1:], -1], strict=True):
            now, then = (torch.full((len(batch),), t, device=device) for t in (timestep, previous))
            with mixed(device):
                v = teacher.unet(torch.cat((x, x)), now.repeat(2), embeddings).sample.float()
            conditional, empty_x0 = (schedule.predict_x0(x, half, now) for half in v.chunk(2))
            x = schedule.ddim_step(x, guide(conditional, empty_x0, w), now, then)
        images.append(decode(vae, x))
    return torch.cat(images).cpu()
