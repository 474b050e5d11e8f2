"""What the readers of the three file formats are given and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["jpeg", "png", "webp"]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost; everything here is checked before anything is decoded.

    `max_bytes` is of the file, not of its base64. `max_parts` bounds the segments or chunks that
    are walked one by one. Over 89 million pixels Pillow's own bound would begin to warn.
    """

    max_bytes: int = 9 * 2**20
    max_pixels: int = 16_800_000
    max_side: int = 8192
    max_scans: int = 100
    max_parts: int = 10_000
    max_icc_bytes: int = 2 * 2**20


@dataclass(frozen=True, slots=True)
class Container:
    """A coded picture without its surroundings, and those two of them that change its pixels.

    `coded` is again a file of the same format. `exif` and `icc` are as hostile as the file was.
    """

    coded: bytes
    exif: bytes | None = None
    icc: bytes | None = None
    is_progressive: bool = False


class MalformedError(ValueError):
    """Not a file that is decoded here. The message is a fixed predicate, such as "is cut short"."""
