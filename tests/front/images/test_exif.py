"""EXIF: the orientation that is read, and the parameters that are written."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.soak import picture_files as pictures
from benchmarks.soak.golden_files import OTHERS, WHOLE
from benchmarks.soak.picture_files import encoded, flat, scene, with_chunks
from service.errors import ImageInvalid
from service.front.images.codec import (
    Metadata,
    Pixels,
    encode_image,
    fit_cover,
    read_metadata,
    read_picture,
    to_data_url,
)
from tests.support.reading import PATH, decode, refusal


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """How pixels stored under an orientation are shown (EXIF 2.32, 4.6.4)."""
    turns: dict[int, Callable[[Pixels], Pixels]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[:, ::-1].swapaxes(0, 1),
    }
    return turns[orientation](pixels)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_equals_a_turned_twin(file_format: str, orientation: int) -> None:
    """I11: each EXIF orientation shows the picture as one that was turned before."""
    picture = scene(24, 40)
    stored = decode(pictures.with_orientation(picture, file_format, 1))
    shown = decode(pictures.with_orientation(picture, file_format, orientation))
    assert np.array_equal(shown, turned(stored, orientation))


@pytest.mark.parametrize("orientation", [1, 6])
def test_orientation_before_reduction(orientation: int) -> None:
    """A photograph on its side is reduced by its shown sides, not by its stored ones."""
    jpeg = pictures.with_orientation(scene(400, 1600), "JPEG", orientation)
    height, width = (200, 100) if orientation == 1 else (100, 200)
    pixels = decode(jpeg, at_least=(height, width))
    assert pixels.shape[:2] == ((200, 800) if orientation == 1 else (800, 200))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduction_of_a_turned_picture(orientation: int) -> None:
    """Cropped, reduced and turned: the order in which it is done does not show."""
    data = pictures.with_orientation(scene(501, 1203), "JPEG", orientation)
    whole = fit_cover(np.ascontiguousarray(decode(data)), 64, 96)
    reduced = read_picture(to_data_url(data, "jpeg"), height=64, width=96, path=PATH)
    assert np.abs(reduced.astype(int) - whole).mean() < 1


BAD_EXIF = {
    "orientation-0": pictures.exif_orientation(0),
    "orientation-9": pictures.exif_orientation(9),
    "orientation-65535": pictures.exif_orientation(65535),
    "orientation-as-text": pictures.exif(pictures.exif_entry(0x0112, 2, 1, 6)),
    "orientation-many": pictures.exif(pictures.exif_entry(0x0112, 3, 2**31, 6)),
    "cyclic": pictures.exif(pictures.exif_entry(0x8769, 4, 1, 8), next_directory=8),
    "far-offset": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "cut": pictures.exif_orientation(6)[:20],
    "count-too-high": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "text": b"Exif\0\0 hello",
    "empty": b"Exif\0\0",
    "60-kilobytes": pictures.exif(padding=60_000),
    # Each entry claims all of the block as its own.
    "thousands-of-large-tags": pictures.exif(
        *(pictures.exif_entry(0x4000 + i, 7, 50_000, 0) for i in range(5000))
    ),
}


@pytest.mark.parametrize("name", BAD_EXIF)
def test_bad_exif_is_ignored(name: str) -> None:
    """I11: unknown orientations, loops and broken blocks leave the picture as stored."""
    picture, exif = scene(24, 40), BAD_EXIF[name]
    jpeg = encoded(picture, "JPEG")
    begin = time.process_time()
    shown = decode(pictures.with_segments(jpeg, pictures.jpeg_segment(0xE1, exif)))
    assert time.process_time() - begin < 0.05
    assert np.array_equal(shown, decode(jpeg))
    plain = with_chunks(encoded(picture, "PNG"), (b"eXIf", exif[6:]))
    assert np.array_equal(decode(plain), np.asarray(picture))
    webp = encoded(picture, "WEBP", lossless=True, exif=exif)
    assert np.array_equal(decode(webp), np.asarray(picture))


def test_exif_does_not_pile_up() -> None:
    """A hundred thousand EXIF segments, which Pillow would join one by one, are refused at once."""
    segment = pictures.jpeg_segment(0xE1, b"Exif\0\0II")
    begin = time.process_time()
    error = refusal(pictures.with_segments(flat("L", 9, "JPEG"), segment * 100_000))
    assert isinstance(error, ImageInvalid)
    assert time.process_time() - begin < 0.1


METADATA: Metadata = {
    "prompt": "zwei Füße 🦶 <\"'&>",
    "seed": 9999999998,
    "steps": 4,
    "strength": 0.31,
}


@pytest.mark.parametrize("file_format", ["jpeg", "png", "webp"])
def test_metadata_is_read_back(file_format: str) -> None:
    """The parameters of a picture stand in its file, for us and for any reader of EXIF."""
    data = encode_image(
        np.asarray(scene(32, 48)),
        format=file_format,  # type: ignore[arg-type]
        metadata=METADATA,
    )
    assert read_metadata(data) == METADATA
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == file_format.upper()
        assert image.size == (48, 32)
        assert image.getexif()[0x0131] == "instant-refine"
        assert image.getexif()[0x010E].isascii()


@given(
    st.dictionaries(
        st.text(max_size=12),
        st.text(max_size=40) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        max_size=6,
    )
)
@settings(max_examples=30, deadline=None)
def test_metadata_of_any_text(metadata: dict[str, str | int | float]) -> None:
    """Whatever JSON holds is read back as it was."""
    data = encode_image(np.zeros((8, 8, 3), np.uint8), metadata=metadata)
    assert read_metadata(data) == metadata


def test_longest_prompt_fits() -> None:
    """1500 characters of the longest escapes fit into the 64 kB that a JPEG's EXIF may take."""
    metadata = {"prompt": "🦶" * 1500}
    assert read_metadata(encode_image(np.zeros((8, 8, 3), np.uint8), metadata=metadata)) == metadata


@pytest.mark.parametrize("name", [*WHOLE, *OTHERS])
def test_foreign_files_have_no_metadata(name: str) -> None:
    """Files of others, whole or not, give None."""
    assert read_metadata({**WHOLE, **OTHERS}[name]) is None


@pytest.mark.parametrize("description", [b"no json\0", b"[1]\0", b"[" * 50_000 + b"\0"])
def test_forged_metadata_is_none(description: bytes) -> None:
    """Our name over what is not our JSON gives None, however deep it nests."""
    exif = Image.Exif()
    exif[0x010E], exif[0x0131] = description.decode(), "instant-refine"
    assert read_metadata(encoded(scene(8, 8), "JPEG", exif=exif)) is None
