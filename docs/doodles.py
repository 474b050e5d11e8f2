"""Doodles of scenes, and sheets of images side by side."""

from __future__ import annotations

import numpy as np
from PIL import Image

from models.training.scenes.renderers import DOODLE, render
from models.training.scenes.scene import Scene, Thing

HOUSE = "a red house in a meadow"
DOODLES = {
    HOUSE: Scene("meadow", (Thing("house", "red", 0.5, 0.56, 0.3),), seed=1),
    "an orange fish in the sea": Scene("sea", (Thing("fish", "orange", 0.5, 0.6, 0.3),), seed=2),
    "a yellow moon at night": Scene("night", (Thing("moon", "yellow", 0.55, 0.42, 0.28),), seed=3),
}

MUSHROOM = "a red mushroom and a green tree in a meadow"
MUSHROOM_AND_TREE = Scene(
    "meadow",
    (Thing("tree", "green", 0.3, 0.5, 0.3), Thing("mushroom", "red", 0.7, 0.6, 0.24)),
    seed=4,
)
"""Two overlapping things of several colours: they show best how styles differ."""


def draw(scene: Scene) -> Image.Image:
    """Draw a scene as a doodle of 512 x 512 pixels."""
    pixels = render([scene], DOODLE, (512, 512))[0]  # [3, H, W], 0 to 1
    return Image.fromarray((pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def sheet(rows: list[list[Image.Image]], *, side: int = 256, gap: int = 0) -> Image.Image:
    """Lay images out in rows, each scaled to a square."""
    step = side + gap
    paper = Image.new("RGB", (step * len(rows[0]) - gap, step * len(rows) - gap), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            square = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
            paper.paste(square, (x * step, y * step))
    return paper
