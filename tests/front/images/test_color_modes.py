"""Modes that no file of ours opens in today, though Pillow has them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from service.front.images.color_modes import flattened, to_eight_bits


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
@pytest.mark.parametrize(("level", "grey"), [(0, 0), (1000, 4), (65535, 255)])
def test_deep_grey_is_scaled(mode: str, level: int, grey: int) -> None:
    """Grey of 32 bits, or in floating point, is taken as 0 to 65535, as that of 16 bits is."""
    assert to_eight_bits(Image.new(mode, (2, 2), level)).getextrema() == (grey, grey)


@pytest.mark.parametrize("mode", ["I", "F"])
@pytest.mark.parametrize(("level", "grey"), [(-5, 0), (70_000, 255)])
def test_grey_out_of_range_is_clipped(mode: str, level: int, grey: int) -> None:
    """What is beyond black or white is black or white, and does not wrap around."""
    assert to_eight_bits(Image.new(mode, (2, 2), level)).getextrema() == (grey, grey)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "PA"])
def test_transparency_becomes_white(mode: str) -> None:
    """Every mode with transparency shows white where nothing is opaque."""
    image = flattened(to_eight_bits(Image.new("RGBA", (2, 2), (255, 0, 0, 0)).convert(mode)))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.full((2, 2, 3), 255))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_opaque_modes_come_down_to_three(mode: str) -> None:
    """Every mode without transparency becomes L, RGB or CMYK, and white stays white."""
    image = flattened(to_eight_bits(Image.new("RGB", (2, 2), "white").convert(mode)))
    assert image.mode in {"L", "RGB", "CMYK"}
    assert np.array_equal(np.asarray(image.convert("RGB")), np.full((2, 2, 3), 255))
