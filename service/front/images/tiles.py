"""The tiles of an upscale: where they lie, and how their pictures become one without a seam."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.protocol.jobs import Origin, Pixels

TILE_SIDE = 512
_LEAST_OVERLAP = 64


def plan_tiles(height: int, width: int) -> tuple[Origin, ...]:
    """Return the top left corners (y, x) of tiles that cover `height` x `width`, row by row.

    Neighbours overlap by 64 pixels or more, and all corners lie on multiples of 8, the grid of
    the latents. Both sides must be multiples of 128, and of 512 at least.
    """
    return tuple((y, x) for y in _starts(height) for x in _starts(width))


def _starts(length: int) -> list[int]:
    stride = TILE_SIDE - _LEAST_OVERLAP
    count = 1 + -(-(length - TILE_SIDE) // stride)  # rounded up
    if count == 1:
        return [0]
    return [round((length - TILE_SIDE) / (count - 1) * index / 8) * 8 for index in range(count)]


def blend_tiles(tiles: Pixels, origins: tuple[Origin, ...], height: int, width: int) -> Pixels:
    """Lay tiles [rows, 512, 512, 3] at their origins into one picture [height, width, 3].

    Where tiles overlap each weighs the more, the farther a pixel lies within it.
    """
    ramp = np.minimum(np.arange(TILE_SIDE), np.arange(TILE_SIDE)[::-1]).astype(np.float32) + 1
    weight = np.outer(ramp, ramp)[..., None]  # [512, 512, 1]
    total: NDArray[np.float32] = np.zeros((height, width, 3), np.float32)
    weights: NDArray[np.float32] = np.zeros((height, width, 1), np.float32)
    for tile, (y, x) in zip(tiles, origins, strict=True):
        area = np.s_[y : y + TILE_SIDE, x : x + TILE_SIDE]
        total[area] += weight * tile
        weights[area] += weight
    return np.round(total / weights).astype(np.uint8)
