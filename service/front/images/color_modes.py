"""Pillow's modes, of any depth and with or without transparency, to those of eight bits without."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

Backdrop = Literal["white", "black"]


def to_eight_bits(image: Image.Image) -> Image.Image:
    """L, RGB or CMYK, or RGBA where anything may be transparent."""
    if image.mode.startswith(("I", "F")):
        return _from_sixteen_bits(image)
    if image.mode == "RGBA":
        return image  # Pillow's convert would copy it
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey of 0 to 65535 scaled to 0 to 255; Pillow's own conversion clips at 255."""
    samples = np.asarray(image)  # [H, W]
    if samples.dtype != np.uint16:
        samples = samples.clip(0, 65535).astype(np.uint16)
    # With y = x + 128, (y - y // 256) // 256 is x / 257 rounded; the bound keeps it in 16 bits.
    grey = np.minimum(samples, 65535 - 128) + np.uint16(128)
    grey -= grey >> 8
    grey >>= 8
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[samples == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8))


def flattened(image: Image.Image, backdrop: Backdrop = "white") -> Image.Image:
    """Without transparency: what was see-through shows the backdrop, never the colour stored."""
    if image.mode != "RGBA":
        return image
    canvas = Image.new("RGB", image.size, backdrop)
    canvas.paste(image, mask=image)
    return canvas
