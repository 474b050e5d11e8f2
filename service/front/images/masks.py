"""Masks of inpainting: white is repainted, black stays as it was, to the pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.errors import ValidationFailed
from service.front.images.codec import read_picture, shown_size
from service.protocol.jobs import Pixels

Weights = NDArray[np.float32]

WHITE = 255
_IS_WHITE_FROM = 128
_FEATHER_PX = 8


def read_mask(text: str, *, like: str | bytes, height: int, width: int, path: str) -> Pixels:
    """A mask's data URL to [height, width], 0 or 255, cropped as its picture is.

    Grey counts as the nearer of black and white. `like` is the picture's data URL or file. Raises
    ValidationFailed for a mask of another size than its picture, and what `read_picture` raises.
    """
    if shown_size(text, path=path) != shown_size(like, path="$.imageDataUrl"):
        raise ValidationFailed(
            f"{path.removeprefix('$.')} must be of the same size as the picture", path=path
        )
    # On black: strokes of white on nothing are a mask of these strokes.
    pixels = read_picture(text, height=height, width=width, path=path, backdrop="black")
    grey = pixels.mean(axis=-1)  # [H, W]
    return np.where(grey >= _IS_WHITE_FROM, np.uint8(WHITE), np.uint8(0))


def looks_inverted(mask: Pixels) -> bool:
    """Return whether a mask [H, W] is likelier black on white: mostly white, and all around."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    is_mixed = bool((mask == 0).any())
    return is_mixed and bool((border == WHITE).all()) and float(mask.mean()) > WHITE / 2


def composite(original: Pixels, repainted: Pixels, mask: Pixels) -> Pixels:
    """Lay the repainted picture [H, W, 3] over the original [H, W, 3] where the mask is white.

    The feather runs inward from the edge of the white area, so that no black pixel changes.
    """
    weight = _feathered(mask)[..., None]  # [H, W, 1]
    blended = original + weight * (repainted.astype(np.float32) - original)
    return np.round(blended).astype(np.uint8)


def _feathered(mask: Pixels) -> Weights:
    """Weights [H, W]: 0 in the black, rising to 1 over 2 x 8 pixels within the white."""
    eroded = np.where(_blurred(mask) == WHITE, np.uint8(WHITE), np.uint8(0))
    # The blur reaches as far out as the erosion went in: to the black, and never into it.
    weights: Weights = np.divide(_blurred(eroded), WHITE, dtype=np.float32)
    # White that is farther from any core than the feather reaches is too thin to have a core of
    # its own: it is repainted whole.
    reach = _dilated(_dilated(eroded))
    weights[(mask == WHITE) & (reach == 0)] = 1
    weights[mask == 0] = 0
    return weights


def _blurred(mask: Pixels) -> Pixels:
    """Mean over squares of 17 x 17: 255 only where all is white, 0 only where all is black.

    One pixel of 289 moves the mean by 0.88, which rounds to a level. Rank filters would say the
    same, but take time with the square of their size, and hold the interpreter's lock for it.
    """
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.BoxBlur(_FEATHER_PX)))


def _dilated(mask: Pixels) -> Pixels:
    return np.where(_blurred(mask) > 0, np.uint8(WHITE), np.uint8(0))
