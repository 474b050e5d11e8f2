"""ICC profiles: what comes out in sRGB, and what a picture outlives."""

from __future__ import annotations

import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from benchmarks.soak import picture_files as pictures
from benchmarks.soak.golden_files import P3
from benchmarks.soak.picture_files import encoded, flat, scene, with_chunks
from service.front.images.codec import Pixels
from tests.support.reading import decode, error_levels


def p3_picture() -> tuple[Image.Image, Pixels]:
    """A picture in Display P3, and its colours in sRGB by the matrices."""
    picture = scene(64, 64)
    linear = pictures.srgb_to_linear(np.asarray(picture) / 255)
    to_srgb = np.linalg.inv(pictures.SRGB_TO_XYZ) @ pictures.P3_TO_XYZ
    moved = pictures.linear_to_srgb(np.clip(linear @ to_srgb.T, 0, 1))
    return picture, np.round(moved * 255).astype(np.uint8)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_wide_colours_become_srgb(file_format: str) -> None:
    """I10: a picture in Display P3 comes out in sRGB, as the matrices have it."""
    picture, expected = p3_picture()
    pixels = decode(encoded(picture, file_format, lossless=True, icc_profile=P3))
    assert error_levels(expected, np.asarray(picture)) > 20
    assert error_levels(pixels, expected) <= 2


def test_profile_in_parts() -> None:
    """A JPEG's profile is joined from its numbered parts, whatever their order."""
    jpeg = encoded(scene(64, 64), "JPEG", quality=100, subsampling=0)
    parts = [
        pictures.jpeg_segment(0xE2, b"ICC_PROFILE\0\2\2" + P3[900:]),
        pictures.jpeg_segment(0xE2, b"ICC_PROFILE\0\1\2" + P3[:900]),
    ]
    whole = decode(pictures.with_jpeg_icc(jpeg, P3))
    assert np.array_equal(decode(pictures.with_segments(jpeg, *parts)), whole)
    assert np.array_equal(decode(pictures.with_segments(jpeg, *parts[:1])), decode(jpeg))
    assert not np.array_equal(whole, decode(jpeg))


def test_profile_with_a_part_missing_is_ignored() -> None:
    """What came of a profile is not used as if it were all of it, though it may be readable."""
    jpeg = encoded(scene(64, 64), "JPEG")
    second = pictures.jpeg_segment(0xE2, b"ICC_PROFILE\0\2\2" + P3)
    assert np.array_equal(decode(pictures.with_segments(jpeg, second)), decode(jpeg))


def test_profile_of_other_colours_is_ignored() -> None:
    """A grey picture with a profile for RGB, as some editors write it, stays as it is."""
    grey = scene(32, 32).convert("L")
    pixels = decode(encoded(grey, "PNG", icc_profile=P3))
    assert np.array_equal(pixels, np.asarray(grey.convert("RGB")))


def test_srgb_profile_changes_nothing() -> None:
    """A profile that is sRGB already leaves every pixel as it was."""
    picture = scene(64, 64)
    icc = pictures.rgb_icc(pictures.SRGB_TO_XYZ)
    assert np.array_equal(decode(encoded(picture, "PNG", icc_profile=icc)), np.asarray(picture))


IGNORED_PROFILES = {
    "text": b"not a profile",
    "cut": P3[:700],
    "header-only": P3[:128],
    "no-tags": P3[:128] + b"\0\0\0\0",
    "wild-offsets": P3[:132] + b"\xff" * 300 + P3[432:],
    "grey-for-rgb": pictures.linear_grey_icc(),
    "endless-elements": P3 + b"mpet",
    "4-megabytes": P3 + bytes(4 * 2**20),
}


@pytest.mark.parametrize("name", IGNORED_PROFILES)
def test_bad_profile_is_ignored(name: str) -> None:
    """I10: a picture outlives a broken, foreign, dangerous or huge profile, in every format."""
    picture, icc = scene(32, 32), IGNORED_PROFILES[name]
    jpeg = encoded(picture, "JPEG")
    plain = encoded(picture, "PNG")
    compressed = (b"iCCP", b"icc\0\0" + zlib.compress(icc))
    webp = encoded(picture, "WEBP", lossless=True, icc_profile=icc)
    assert np.array_equal(decode(with_chunks(plain, compressed)), np.asarray(picture))
    assert np.array_equal(decode(webp), np.asarray(picture))
    assert np.array_equal(decode(pictures.with_jpeg_icc(jpeg, icc)), decode(jpeg))


def test_broken_profile_chunk_is_ignored() -> None:
    """A PNG outlives profile chunks that do not inflate, and thousands that do."""
    plain = flat("RGB", (1, 2, 3))
    bomb = (b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**21), 9))
    for chunks in ([(b"iCCP", b"icc\0\0junk")], [(b"iCCP", b"")], [bomb] * 2000):
        begin = time.process_time()
        assert np.array_equal(decode(with_chunks(plain, *chunks)), decode(plain))
        assert time.process_time() - begin < 0.5


def test_many_threads_decode_alike() -> None:
    """Threads that share a colour transform give the pixels that one alone gives."""
    files = [encoded(scene(96, 64 + i), "PNG", icc_profile=P3) for i in range(8)]
    alone = [decode(data) for data in files]
    together: dict[int, Pixels] = {}

    def work(i: int) -> None:
        for _ in range(5):
            together[i] = decode(files[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(together[i], alone[i]) for i in range(8))
