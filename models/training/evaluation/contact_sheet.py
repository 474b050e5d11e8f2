"""The contact sheet: doodles, and the model's images of them in every style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.styles.presets import load_styles
from models.training.evaluation.sampling import refine
from models.training.scenes.renderers import DOODLE, render
from models.training.scenes.scene import Scene, Thing

TILE = 128
SHEET_SCENES = (
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


def write_contact_sheet(
    pipeline: Any, path: Path, *, strength: float = 0.6, guidance: float = 6
) -> None:
    """Write a row for each scene: the doodle, every style, and strength 1 from a grey canvas."""
    scenes = [scene for scene, _ in SHEET_SCENES]
    captions = [caption for _, caption in SHEET_SCENES]
    doodles = render(scenes, DOODLE, (512, 512))
    columns = [doodles]
    for style in load_styles().values():
        prompts = [style.apply(caption) for caption in captions]
        columns.append(
            refine(pipeline, prompts, doodles, strength=strength, guidance=guidance, seed=3)
        )
    canvas = torch.full_like(doodles, 0.5)
    columns.append(refine(pipeline, captions, canvas, strength=1, guidance=guidance, seed=3))
    tiles = F.interpolate(torch.cat(columns), size=(TILE, TILE), mode="area")
    tiles = (tiles.clamp(0, 1) * 255).round().byte()
    tiles = tiles.reshape(len(columns), len(scenes), 3, TILE, TILE)
    sheet = tiles.permute(1, 3, 0, 4, 2).reshape(len(scenes) * TILE, len(columns) * TILE, 3)
    Image.fromarray(np.ascontiguousarray(sheet.numpy())).save(path, quality=88)
