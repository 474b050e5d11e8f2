"""Masks: what is black stays, what is white is repainted, and the seam lies within the white."""

from __future__ import annotations

import base64
import time

import numpy as np
import pytest
from PIL import Image

from benchmarks.soak.picture_files import encoded, scene
from service.errors import ImageInvalid, ValidationFailed
from service.front.images.masks import WHITE, composite, looks_inverted, read_mask
from service.protocol.jobs import Pixels

SIDE = 96
ORIGINAL: Pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
REPAINTED: Pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def square(low: int, high: int) -> Pixels:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[low:high, low:high] = WHITE
    return mask


def url(image: Image.Image, file_format: str = "PNG") -> str:
    return base64.b64encode(encoded(image, file_format)).decode()


@pytest.mark.parametrize("mask", [square(20, 76), square(0, 40), square(90, 96), square(47, 49)])
def test_black_stays_and_white_changes_with_a_feather_inward(mask: Pixels) -> None:
    """Every black pixel is the original's, the core of the white is repainted, thin parts too."""
    result = composite(ORIGINAL, REPAINTED, mask)
    np.testing.assert_array_equal(result[mask == 0], ORIGINAL[mask == 0])
    inside = mask == WHITE
    assert (result[inside] != ORIGINAL[inside]).any()
    if inside.sum() > 40 * 40:
        middle = np.argwhere(inside).mean(axis=0).astype(int)
        np.testing.assert_array_equal(result[tuple(middle)], REPAINTED[tuple(middle)])


def test_all_black_returns_the_original_and_all_white_the_repainted() -> None:
    """The two ends of a mask: the input to the byte, and plain img2img to the byte."""
    black, white = square(0, 0), square(0, SIDE)
    np.testing.assert_array_equal(composite(ORIGINAL, REPAINTED, black), ORIGINAL)
    np.testing.assert_array_equal(composite(ORIGINAL, REPAINTED, white), REPAINTED)


def test_the_feather_rises_without_a_step() -> None:
    """From the edge of the white inwards the weight grows a little with each pixel."""
    black: Pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    white: Pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    row = composite(black, white, square(20, 76))[SIDE // 2, 15:45, 0].astype(int)
    steps = np.diff(row)
    assert (row[0], row[-1]) == (0, 255)
    assert (steps >= 0).all()
    assert steps.max() <= 255 / 16 + 1


def test_a_mask_is_read_as_its_picture_is_cropped() -> None:
    """Grey counts as the nearer end, and the crop is the picture's own."""
    picture = scene(60, 100)
    levels: Pixels = np.zeros((60, 100), dtype=np.uint8)
    levels[:, 50:] = 200
    levels[:, :10] = 100
    mask = read_mask(
        url(Image.fromarray(levels)), like=url(picture), height=64, width=64, path="$.maskDataUrl"
    )
    assert mask.shape == (64, 64)
    assert set(np.unique(mask)) == {0, WHITE}
    assert not mask[:, :30].any()
    assert mask[:, 34:].all()


def test_a_mask_of_another_size_is_refused_by_name() -> None:
    """Sizes are compared as shown: a picture turned by its EXIF has that of its turned twin."""
    turned = scene(40, 60)
    exif = turned.getexif()
    exif[0x0112] = 6
    like = base64.b64encode(encoded(turned, "JPEG", exif=exif)).decode()
    for size, is_same in [((40, 60), True), ((60, 40), False), ((41, 60), False)]:
        mask = url(Image.new("L", size, 255))
        if is_same:
            read_mask(mask, like=like, height=64, width=64, path="$.maskDataUrl")
        else:
            with pytest.raises(ValidationFailed, match="maskDataUrl must be of the same size"):
                read_mask(mask, like=like, height=64, width=64, path="$.maskDataUrl")
    with pytest.raises(ImageInvalid, match="maskDataUrl"):
        read_mask("AAAA", like=like, height=64, width=64, path="$.maskDataUrl")


def test_strokes_of_white_on_nothing_are_the_mask() -> None:
    """A transparent ground is black: an editor's layer of strokes repaints the strokes alone."""
    strokes = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    strokes.paste((255, 255, 255, 255), (10, 10, 20, 20))
    mask = read_mask(
        url(strokes), like=url(scene(64, 64)), height=64, width=64, path="$.maskDataUrl"
    )
    assert int((mask == WHITE).sum()) == 100


def test_a_large_feather_takes_milliseconds_and_no_lock() -> None:
    """At 1024 x 1024 the feather is cheap: rank filters took two seconds, and the lock."""
    mask = np.kron(square(20, 76), np.ones((11, 11), np.uint8))[:1024, :1024]
    picture = np.zeros((1024, 1024, 3), np.uint8)
    started = time.process_time()
    composite(picture, picture, np.ascontiguousarray(mask))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("mask", "is_inverted"),
    [
        (square(20, 76), False),
        (255 - square(20, 76), True),
        (square(0, SIDE), False),
        (square(0, 0), False),
        (square(0, 90), False),
    ],
)
def test_an_inverted_mask_is_told(mask: Pixels, *, is_inverted: bool) -> None:
    """A black hole in a white frame is most likely the wrong way round; one colour is not."""
    assert looks_inverted(mask) == is_inverted
