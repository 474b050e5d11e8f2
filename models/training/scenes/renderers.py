"""The registry of the painters: a style's name -> a picture [B, 3, H, W] in 0..1 of scenes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.training.scenes import styles_drawn as drawn
from models.training.scenes import styles_lit as lit
from models.training.scenes.gbuffer import GBuffer, rasterise
from models.training.scenes.scene import Scene

Painter = Callable[[GBuffer], Tensor]
PAINTERS: dict[str, Painter] = {
    "NONE": lit.paint_none,
    "ANIME": drawn.paint_anime,
    "CINEMATIC": lit.paint_cinematic,
    "DIGITAL_ART": lit.paint_digital,
    "DYNAMIC": lit.paint_dynamic,
    "ENVIRONMENT": lit.paint_environment,
    "FANTASY_ART": lit.paint_fantasy,
    "ILLUSTRATION": drawn.paint_illustration,
    "PHOTOGRAPHY": lit.paint_photograph,
    "RAYTRACED": lit.paint_raytraced,
    "RENDER_3D": lit.paint_clay,
    "SKETCH_BW": drawn.paint_sketch_bw,
    "SKETCH_COLOR": drawn.paint_sketch_colour,
    "VIBRANT": drawn.paint_vibrant,
}
DOODLE = "doodle"


def render(
    scenes: list[Scene], style: str, size: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """Render scenes in one style (or "doodle") at `size` (height, width): [B, 3, H, W] in 0..1."""
    where = device or torch.device("cpu")
    if style == DOODLE:
        return drawn.paint_doodle(rasterise(scenes, size, where, wobble=0.036))
    return PAINTERS[style](rasterise(scenes, size, where))
