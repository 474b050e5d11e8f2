"""The picture that benchmarks send: as rich in detail as a photograph, and made by a formula."""

from __future__ import annotations

import numpy as np

from service.front.images.codec import encode_image
from service.protocol.jobs import Pixels


def photograph(height: int, width: int) -> Pixels:
    """Return noise with the 1/f spectrum of photographs, [H, W, 3].

    (Field, "Relations between the statistics of natural images", 1987.)
    """
    rng = np.random.default_rng(0)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    falloff = 1 / np.maximum(np.hypot(y, x), 1 / max(height, width))
    channels = [
        np.fft.irfft2(falloff * np.fft.rfft2(rng.standard_normal((height, width))), (height, width))
        for _ in range(3)
    ]
    picture = np.stack(channels, axis=-1)
    picture = 128 + 50 * (picture - picture.mean()) / picture.std()
    pixels: Pixels = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    return pixels


def photograph_jpeg(height: int, width: int) -> bytes:
    """Return the same as a JPEG of quality 90."""
    return encode_image(photograph(height, width), format="jpeg", quality=90)
