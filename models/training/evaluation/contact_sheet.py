"""The contact sheet: doodles, and what the model makes of them in every style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.styles.presets import load_styles
from models.training.evaluation.sampling import refine
from models.training.scenes.renderers import DOODLE, render
from models.training.scenes.scene import Scene, Thing

TILE = 128
SHOWN = (
    (Scene("meadow", (Thing("house", "red", 0.5, 0.55, 0.34),), 11), "a red house in a meadow"),
    (Scene("sea", (Thing("boat", "blue", 0.48, 0.55, 0.33),), 12), "a blue boat at sea"),
    (
        Scene("plain", (Thing("heart", "pink", 0.5, 0.5, 0.35),), 14, ground="white"),
        "a pink heart on a plain white background",
    ),
    (Scene("night", (Thing("moon", "yellow", 0.55, 0.42, 0.3),), 17), "a yellow moon at night"),
    (
        Scene("room", (Thing("mushroom", "purple", 0.5, 0.55, 0.33),), 18),
        "a purple mushroom in a room",
    ),
)  # fmt: skip


def grid(pictures: Tensor, across: int) -> Image.Image:
    """Return pictures [N, 3, H, W] in 0..1 as rows of `across`."""
    tiles = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    lines = [
        np.concatenate(list(tiles[at : at + across]), 1) for at in range(0, len(tiles), across)
    ]
    return Image.fromarray(np.concatenate(lines, 0))


def contact_sheet(pipeline: Any, path: Path, *, strength: float = 0.6, guidance: float = 6) -> None:
    """Write a sheet: a row a doodle: the doodle, a column a style, then strength 1 from grey."""
    scenes = [scene for scene, _ in SHOWN]
    doodles = render(scenes, DOODLE, (512, 512))
    lines = [doodles]
    for style in load_styles().values():
        prompts = [style.apply(words) for _, words in SHOWN]
        lines.append(
            refine(pipeline, prompts, doodles, strength=strength, guidance=guidance, seed=3)
        )
    prompts = [words for _, words in SHOWN]
    blank = torch.full_like(doodles, 0.5)
    lines.append(refine(pipeline, prompts, blank, strength=1, guidance=guidance, seed=3))
    small = F.interpolate(torch.cat(lines), size=(TILE, TILE), mode="area")
    across = small.view(len(lines), len(SHOWN), 3, TILE, TILE).transpose(0, 1).flatten(0, 1)
    grid(across, len(lines)).save(path, quality=88)
