"""The style renderers by name: images [B, 3, H, W] in 0..1 of scenes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.training.scenes import styles_drawn as drawn
from models.training.scenes import styles_lit as lit
from models.training.scenes.gbuffer import GBuffer, rasterise
from models.training.scenes.scene import Scene

StyleRenderer = Callable[[GBuffer], Tensor]
STYLE_RENDERERS: dict[str, StyleRenderer] = {
    "NONE": lit.render_none,
    "ANIME": drawn.render_anime,
    "CINEMATIC": lit.render_cinematic,
    "DIGITAL_ART": lit.render_digital,
    "DYNAMIC": lit.render_dynamic,
    "ENVIRONMENT": lit.render_environment,
    "FANTASY_ART": lit.render_fantasy,
    "ILLUSTRATION": drawn.render_illustration,
    "PHOTOGRAPHY": lit.render_photograph,
    "RAYTRACED": lit.render_raytraced,
    "RENDER_3D": lit.render_clay,
    "SKETCH_BW": drawn.render_sketch_bw,
    "SKETCH_COLOR": drawn.render_sketch_colour,
    "VIBRANT": drawn.render_vibrant,
}
DOODLE = "doodle"
ALL_STYLES = (*STYLE_RENDERERS, DOODLE)


def render(
    scenes: list[Scene], style: str, size: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """Render scenes in one style (or "doodle") at `size` (height, width): [B, 3, H, W] in 0..1."""
    where = device or torch.device("cpu")
    if style == DOODLE:
        return drawn.render_doodle(rasterise(scenes, size, where, wobble=0.036))
    return STYLE_RENDERERS[style](rasterise(scenes, size, where))
