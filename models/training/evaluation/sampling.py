"""Pictures from the shipped folder in bare diffusers, and from the teacher, for evaluation."""

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
from models.training.networks import noise as diffusion
from models.training.networks.tokenizer import tokenize
from models.training.stages.distillation import guided_denoised
from models.training.stages.latent_dataset import decode
from models.training.stages.teacher import Teacher

BATCH = 8
Guide = Callable[[Tensor, Tensor, Tensor], Tensor]


def load_pipeline(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> LatentConsistencyModelImg2ImgPipeline:
    """Load the folder with diffusers' own class and nothing of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = LatentConsistencyModelImg2ImgPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def refine(
    pipeline: LatentConsistencyModelImg2ImgPipeline,
    prompts: Sequence[str],
    pictures: Tensor,
    *,
    strength: float,
    guidance: float,
    steps: int = 4,
    seed: int = 0,
) -> Tensor:
    """Refine pictures [B, 3, H, W] in 0..1, each row with a seed of its own: [B, 3, H, W]."""
    refined = []
    for at in tqdm(range(0, len(prompts), BATCH), desc=f"strength {strength}", leave=False):
        few = list(prompts[at : at + BATCH])
        generators = [torch.Generator().manual_seed(seed + at + row) for row in range(len(few))]
        made = pipeline(
            prompt=few,
            image=pictures[at : at + BATCH],
            strength=strength,
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=generators,
            output_type="np",
        ).images
        refined.append(torch.from_numpy(np.asarray(made)).permute(0, 3, 1, 2).float())
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
    guide: Guide = guided_denoised,
) -> Tensor:
    """Sample the teacher from noise by DDIM with classifier-free guidance: [B, 3, H, W].

    Like its student it holds guidance's contrast, if `guide` is not the plain one, `guided`.
    """
    device = next(teacher.parameters()).device
    powers = diffusion.alphas_cumprod(device)
    grid = [diffusion.STEPS - diffusion.STEPS * n // steps - 1 for n in range(steps)]
    pictures = []
    for at in tqdm(range(0, len(prompts), BATCH), desc=f"teacher {steps}", leave=False):
        few = list(prompts[at : at + BATCH])
        lot = torch.Generator().manual_seed(seed + at)
        x = torch.randn(len(few), 4, shape[0] // 8, shape[1] // 8, generator=lot).to(device)
        w = torch.full((len(few),), guidance - 1, device=device)
        with mixed(device):
            text = teacher.read(torch.tensor(tokenize(few), device=device))
            blank = teacher.read(torch.tensor(tokenize([""]), device=device)).expand_as(text)
        for step, t in enumerate(grid):
            now = torch.full((len(few),), t, device=device)
            then = now * 0 + (grid[step + 1] if step + 1 < steps else -1)
            with mixed(device):
                v = teacher.unet(torch.cat((x, x)), now.repeat(2), torch.cat((text, blank))).sample
            with_text, without = (
                diffusion.denoised(x, half, powers, now) for half in v.float().chunk(2)
            )
            x_0 = guide(with_text, without, w)
            x = diffusion.ddim_step(x, x_0, powers, now, then)
        pictures.append(decode(vae, x))
    return torch.cat(pictures).cpu()
