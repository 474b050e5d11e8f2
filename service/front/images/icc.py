"""Colours of a picture's ICC profile to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import chain, product
from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageCms

# A difference of this many levels is rounding, not colour.
_SAME_LEVELS: Final = 2


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """An L, RGB or CMYK picture as RGB in sRGB.

    A profile that is broken or made for another kind of picture is ignored.
    """
    if icc is not None:
        try:
            transform = _transform(icc, image.mode)
            if transform is not None:
                image = transform.apply(image)
        except Exception:  # noqa: BLE001, S110 - a picture is worth more than its broken profile
            pass
    return image.convert("RGB")


@lru_cache(maxsize=8)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile to sRGB, or None where that changes nothing.

    Built once per profile (3 ms), as most callers' pictures share one of a few.
    Raises for a profile that is broken, or of other colours than `mode`.
    """
    # Elements of that type chain without end, and building a transform would walk the chain
    # for every point of a grid.
    if b"mpet" in icc:
        return None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        flags=ImageCms.Flags.NOCACHE,  # threads share the transform
    )
    return None if _is_identity(transform, mode) else transform


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether colours from all over the space stay where they are."""
    # A mode has a letter for each of its bands.
    colours = bytes(chain(*product(range(0, 256, 51), repeat=len(mode))))
    probe = Image.frombytes(mode, (len(colours) // len(mode), 1), colours)
    moved = transform.apply(probe)
    differences = np.asarray(ImageChops.difference(moved, probe.convert("RGB")))
    return bool(differences.max() <= _SAME_LEVELS)
