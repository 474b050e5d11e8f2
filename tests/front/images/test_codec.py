"""Pictures in and out: the pixels of every mode, every size, and what is written."""

from __future__ import annotations

import io
import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.soak import picture_files as pictures
from benchmarks.soak.golden_files import GOLDEN, P3, WHOLE
from benchmarks.soak.picture_files import encoded, flat, png, scene, with_chunks
from service.errors import ImageTooLarge
from service.front.images.codec import (
    ImageLimits,
    encode_image,
    fit_cover,
    read_picture,
    to_data_url,
)
from tests.support.reading import PATH, decode, error_levels, refusal


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pixels(name: str) -> None:
    """I10: every mode comes out as its RGB, transparency as white, within two levels."""
    data, colour = GOLDEN[name]
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2:] == (3,)
    assert error_levels(pixels, np.full_like(pixels, colour)) <= 2


@pytest.mark.parametrize("name", GOLDEN)
def test_reading_is_decoding(name: str) -> None:
    """A data URL of the size asked for gives exactly the pixels of its file."""
    data, _ = GOLDEN[name]
    pixels = decode(data)
    height, width, _ = pixels.shape
    text = to_data_url(data, "jpeg")
    assert np.array_equal(read_picture(text, height=height, width=width, path=PATH), pixels)


def test_sixteen_bit_grey_is_scaled() -> None:
    """All 65,536 greys come out as grey / 257, rounded."""
    greys = np.arange(65536, dtype=">u2").reshape(256, 256)
    rows = b"".join(b"\0" + row.tobytes() for row in greys)
    pixels = decode(png(256, 256, 16, 0, rows))
    assert np.array_equal(pixels[..., 0], np.round(greys / 257).astype(np.uint8))


def test_pixels_are_the_callers() -> None:
    """The pixels may be written to, as some who take arrays insist."""
    pixels = decode(flat("RGB", (1, 2, 3)))
    pixels[0, 0] = 9
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp"])
def test_declared_type_is_not_believed(file_format: str) -> None:
    """I7: the bytes decide, as hosted samples declare a PNG to be a JPEG."""
    expected = np.asarray(scene(64, 64))
    for declared in ("jpeg", "png", "webp"):
        text = to_data_url(WHOLE[file_format], declared)
        pixels = read_picture(text, height=64, width=64, path=PATH)
        assert np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp"])
def test_nothing_of_the_input_is_passed_on(file_format: str) -> None:
    """I8: a picture that is also an archive or a page is taken, and only its pixels go on."""
    canary = b"<script>canary</script>"
    exif = Image.Exif()
    exif[0x010E] = canary.decode()
    options = {"exif": exif, "icc_profile": P3 + canary, "xmp": canary}
    data = encoded(scene(64, 64), file_format.upper(), **options)
    if file_format == "jpeg":
        data = pictures.with_segments(data, pictures.jpeg_segment(0xFE, canary))
    if file_format == "png":
        data = with_chunks(data, (b"tEXt", b"Comment\0" + canary))
    data += b"PK\x03\x04" + canary
    assert data.count(canary) >= 3
    pixels = decode(data)
    for out in ("jpeg", "png", "webp"):
        written = encode_image(pixels, format=out)
        assert b"canary" not in written
        assert b"PK\x03\x04" not in written
        assert not Image.open(io.BytesIO(written)).info.keys() & {"exif", "icc_profile", "comment"}


def test_no_warning_leaves() -> None:
    """Pillow's warnings about files that a caller sent reach nobody."""
    mpf = pictures.jpeg_segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")
    tags = [pictures.exif_entry(0x4000 + i, 7, 60_000, 0) for i in range(100)]
    exif = pictures.jpeg_segment(0xE1, pictures.exif(*tags))
    jpeg = encoded(scene(64, 64), "JPEG")
    headless = jpeg[:2] + jpeg[20:]  # without JFIF, Pillow asks the EXIF for the resolution
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(pictures.with_segments(headless, mpf, exif))
        decode(with_chunks(WHOLE["png"], (b"acTL", bytes(8)), (b"acTL", bytes(8))))
    assert not caught


def test_pixel_cap_is_exact() -> None:
    """I2: exactly the cap is taken, a column more is not, in every format."""
    limits = ImageLimits(max_pixels=64 * 64)
    for file_format in ("JPEG", "PNG", "WEBP"):
        assert decode(encoded(scene(64, 64), file_format), limits=limits).shape == (64, 64, 3)
        error = refusal(encoded(scene(64, 65), file_format), limits)
        assert isinstance(error, ImageTooLarge)
        assert "4096" in error.message


def test_default_cap_takes_a_square_of_4096() -> None:
    """I2: a picture of 4096 x 4096 is taken, and reduced where less is enough."""
    data = png(4096, 4096, 1, 0, (b"\0" + b"\xff" * 512) * 4096)
    assert decode(data, at_least=(512, 512)).shape == (1024, 1024, 3)


def test_default_limits_take_a_photograph() -> None:
    """A 12-megapixel photograph passes the default limits, and half of its work is skipped."""
    limits = ImageLimits()
    assert math.prod((4032, 3024)) <= limits.max_pixels
    jpeg = encoded(Image.new("RGB", (4032, 3024), (10, 120, 250)), "JPEG")
    assert decode(jpeg, at_least=(512, 512)).shape == (756, 1008, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 8192), (8192, 1), (1, 1)])
def test_lines_and_points(height: int, width: int) -> None:
    """I6: a single pixel and lines of the longest side are pictures, one pixel longer is not."""
    text = to_data_url(encoded(Image.new("RGB", (width, height), "red"), "PNG"), "png")
    pixels = read_picture(text, height=512, width=512, path=PATH)
    assert np.array_equal(pixels, np.full((512, 512, 3), (255, 0, 0)))
    longer = encoded(Image.new("RGB", (8193, 1)), "PNG")
    assert isinstance(refusal(longer), ImageTooLarge)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    at_least=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    file_format=st.sampled_from(["JPEG", "PNG", "WEBP"]),
)
@settings(max_examples=80, deadline=None)
def test_reduction_keeps_enough(
    size: tuple[int, int],
    at_least: tuple[int, int],
    file_format: str,
) -> None:
    """A picture comes back whole, or reduced with neither side below what was asked for."""
    pixels = decode(encoded(scene(*size), file_format), at_least=at_least)
    for side, stored, wanted in zip(pixels.shape, size, at_least, strict=False):
        assert min(stored, wanted) <= side <= stored


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("height", "width"), [(96, 128), (60, 80), (150, 150)])
def test_reduction_keeps_the_picture(file_format: str, height: int, width: int) -> None:
    """Reduced while it is decoded or not, the fitted picture is the same, and in the same place."""
    data = encoded(scene(900, 1200), file_format, quality=95)
    whole = fit_cover(decode(data), height, width)
    reduced = read_picture(to_data_url(data, "jpeg"), height=height, width=width, path=PATH)
    assert error_levels(reduced, whole) <= 6
    assert np.abs(reduced.astype(int) - whole).mean() < 1


def test_transparency_is_reduced_by_weight() -> None:
    """Colour under full transparency does not bleed into its neighbours as a picture shrinks."""
    stripes = np.zeros((512, 512, 4), np.uint8)
    stripes[:, ::2] = (0, 0, 255, 255)
    stripes[:, 1::2] = (255, 0, 0, 0)
    data = encoded(Image.fromarray(stripes), "PNG")
    pixels = decode(data, at_least=(64, 64))
    assert error_levels(pixels, np.full_like(pixels, (127, 127, 255))) <= 2


def test_cover_leaves_the_right_size_alone() -> None:
    """Pixels of the size asked for come back as the same object, and to the bit from a file."""
    pixels = np.asarray(scene(64, 48))
    assert fit_cover(pixels, 64, 48) is pixels
    text = to_data_url(encoded(scene(64, 48), "PNG"), "png")
    assert np.array_equal(read_picture(text, height=64, width=48, path=PATH), pixels)


@pytest.mark.parametrize(("height", "width"), [(30, 90), (90, 30)])
def test_cover_cuts_evenly(height: int, width: int) -> None:
    """What overhangs is cut off both ends: the middle third of a strip is what remains."""
    strip = np.zeros((height, width, 3), np.uint8)
    middle = (slice(None), slice(30, 60)) if width > height else (slice(30, 60), slice(None))
    strip[middle] = np.asarray(scene(30, 30))
    assert np.array_equal(fit_cover(strip, 30, 30), strip[middle])


@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    target=st.sampled_from([(64, 64), (64, 96), (128, 64)]),
)
@settings(max_examples=60, deadline=None)
def test_cover_gives_the_size(size: tuple[int, int], target: tuple[int, int]) -> None:
    """Any size covers any other, without a border of another colour."""
    pixels = fit_cover(np.full((*size, 3), 77, np.uint8), *target)
    assert pixels.shape == (*target, 3)
    assert (pixels == 77).all()


def test_extreme_aspect_is_cheap() -> None:
    """A line of 8192 pixels is cropped before it is scaled: 512 x 4194304 never exists."""
    line = np.zeros((1, 8192, 3), np.uint8)
    begin = time.process_time()
    fit_cover(line, 512, 512)
    assert time.process_time() - begin < 0.1


def test_png_is_exact() -> None:
    """A PNG gives back the pixels it was given."""
    pixels = np.asarray(scene(40, 30))
    assert np.array_equal(decode(encode_image(pixels, format="png")), pixels)


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_quality_is_a_scale(file_format: str) -> None:
    """More quality is nearer to the pixels, and in a larger file."""
    pixels = np.asarray(scene(128, 128))
    files = [encode_image(pixels, format=file_format, quality=q) for q in (30, 90)]  # type: ignore[arg-type]
    errors = [np.abs(decode(data).astype(int) - pixels).mean() for data in files]
    assert errors[0] > errors[1]
    assert len(files[0]) < len(files[1])
