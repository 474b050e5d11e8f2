"""The twelve colours of things and the fixed colours of their parts (windows, trunks, wheels)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

Rgb = tuple[float, float, float]

COLOURS: dict[str, Rgb] = {
    "red": (0.86, 0.13, 0.14),
    "orange": (0.96, 0.52, 0.10),
    "yellow": (0.98, 0.85, 0.15),
    "green": (0.20, 0.65, 0.24),
    "teal": (0.08, 0.60, 0.60),
    "blue": (0.14, 0.33, 0.86),
    "purple": (0.50, 0.20, 0.70),
    "pink": (0.98, 0.52, 0.74),
    "brown": (0.47, 0.28, 0.13),
    "black": (0.09, 0.09, 0.10),
    "white": (0.96, 0.96, 0.95),
    "grey": (0.53, 0.53, 0.54),
}
COLOUR_NAMES = tuple(COLOURS)

# Parts whose colour does not depend on the thing's.
FIXED: dict[str, Rgb] = {
    "wood": (0.42, 0.26, 0.13),
    "window": (0.80, 0.90, 0.96),
    "lamp": (0.99, 0.90, 0.55),
    "cream": (0.96, 0.91, 0.80),
    "leaf": (0.22, 0.52, 0.20),
    "rubber": (0.12, 0.12, 0.13),
    "metal": (0.70, 0.71, 0.74),
    "sail": (0.97, 0.96, 0.92),
    "eye": (0.98, 0.98, 0.98),
}


def part_colour(role: str, main: Tensor) -> Tensor:
    """Return the colours [n, 3] of a part of things whose colours are `main` [n, 3].

    `role` is "main", "dark" or "light" (shades of the thing's colour) or a name in FIXED.
    """
    if role == "main":
        return main
    if role == "dark":
        return main * 0.66
    if role == "light":
        return main + (1 - main) * 0.5
    return torch.tensor(FIXED[role], device=main.device).expand_as(main)
