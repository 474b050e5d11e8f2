"""Hostile files: bombs, broken ones, other formats, several in one, and mutated ones."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.soak import picture_files as pictures
from benchmarks.soak.golden_files import GOLDEN, OTHERS, P3, WHOLE
from benchmarks.soak.picture_files import encoded, flat, png, scene, with_chunks
from service.errors import BodyTooLarge, ImageInvalid, ImageTooLarge
from service.front.images.codec import ImageLimits, read_picture, to_data_url
from tests.support.reading import PATH, decode, error_levels, refusal

_BOMBS = """
import pathlib, re, time
from service.errors import RefineError
from service.front.images.codec import decode_image
from benchmarks.soak import picture_files as pictures
def peak_mb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024
"""


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmHWM")


def run_script(body: str) -> None:
    """In a process of its own, so that the peak of its memory is the script's alone."""
    done = subprocess.run(
        [sys.executable, "-c", _BOMBS + body], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", pictures.bombs())
def test_bomb_is_refused_by_its_header(name: str) -> None:
    """I1: a header of too many pixels is refused before anything else is looked at."""
    data = pictures.bombs()[name]
    assert isinstance(refusal(data), ImageTooLarge)


@needs_proc
def test_bombs_cost_nothing() -> None:
    """I1: no bomb takes 50 ms or 16 MB, over a megabyte of ordinary work before."""
    run_script("""
bombs = pictures.bombs()
for file_format in ("JPEG", "PNG", "WEBP"):
    decode_image(pictures.encoded(pictures.scene(64, 64), file_format), path="$.a")
before = peak_mb()
for name, data in bombs.items():
    begin = time.process_time()
    try:
        decode_image(data, path="$.a")
        raise SystemExit("taken: " + name)
    except RefineError:
        assert time.process_time() - begin < 0.05, name
assert peak_mb() - before < 16, peak_mb() - before
""")


@needs_proc
def test_large_pictures_take_turns() -> None:
    """Two pictures at the cap at once cost the memory of one: a WebP takes 16 bytes a pixel."""
    run_script("""
import asyncio
from functools import partial
from service.front.images.decode_pool import Decoders
data = pictures.webp_bomb(4096)
decode_image(pictures.webp_bomb(64), path="$.a")
work = partial(decode_image, data, path="$.a", at_least=(512, 512))
async def both():
    decoders = Decoders("thread")
    await asyncio.gather(decoders.run(work, "one"), decoders.run(work, "other"))
    decoders.close()
before = peak_mb()
asyncio.run(both())
assert 200 < peak_mb() - before < 300, peak_mb() - before
""")


def test_scans_are_bounded() -> None:
    """I3: a JPEG of 20,000 scans, seconds of work in 200 kB, is refused in milliseconds."""
    data = pictures.many_scans(20_000)
    begin = time.process_time()
    error = refusal(data)
    assert time.process_time() - begin < 0.02
    assert isinstance(error, ImageInvalid)
    assert "100 scans" in error.message
    assert decode(pictures.many_scans(100)).shape == (512, 512, 3)
    refusal(pictures.many_scans(101))


def test_ordinary_progressive_jpeg() -> None:
    """I4: an ordinary progressive JPEG is taken."""
    progressive = encoded(scene(64, 64), "JPEG", progressive=True)
    assert error_levels(decode(progressive), decode(encoded(scene(64, 64), "JPEG"))) <= 2


def test_scans_of_others_do_not_count() -> None:
    """I4: the scans of a thumbnail, or of a film behind the picture, are not the picture's."""
    jpeg = encoded(scene(64, 64), "JPEG")
    thumbnail = pictures.exif(padding=100) + jpeg + b"\xff\xda" * 200
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 200
    both = pictures.with_segments(jpeg, pictures.jpeg_segment(0xE1, thumbnail)) + film
    assert np.array_equal(decode(both), decode(jpeg))


@pytest.mark.parametrize("name", WHOLE)
def test_truncated_file_is_refused(name: str) -> None:
    """I5: a file cut after a byte, in its header, in its middle or before its last byte."""
    whole = WHOLE[name]
    decode(whole)
    for num_bytes in (0, 1, 12, 30, len(whole) // 2, len(whole) - 2, len(whole) - 1):
        assert isinstance(refusal(whole[:num_bytes]), ImageInvalid)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND"])
def test_wrong_checksum_is_refused(kind: bytes) -> None:
    """I6: a PNG whose header, data or end fails its checksum is refused."""
    broken = bytearray(WHOLE["png"])
    at = broken.index(kind)
    length = int.from_bytes(broken[at - 4 : at])
    broken[at + 4 + length] ^= 1
    assert isinstance(refusal(bytes(broken)), ImageInvalid)


@pytest.mark.parametrize("data", [png(0, 0, 8, 2, b""), png(0, 8, 8, 2, b""), png(8, 0, 8, 2, b"")])
def test_picture_of_no_pixels_is_refused(data: bytes) -> None:
    """I6: no height or no width is no picture."""
    assert isinstance(refusal(data), ImageInvalid)


def test_two_sizes_are_refused() -> None:
    """A second header of another size, after the one that was measured, does not pass."""
    second = (b"IHDR", struct.pack(">IIBBBBB", 9000, 4000, 8, 2, 0, 0, 0))
    assert "two sizes" in refusal(with_chunks(flat("RGB", (1, 2, 3)), second)).message
    jpeg = flat("L", 9, "JPEG")
    frame = pictures.jpeg_segment(0xC0, struct.pack(">BHHBBBB", 8, 4000, 9000, 1, 1, 0x11, 0))
    tables = jpeg.index(b"\xff\xc4")
    assert "two sizes" in refusal(jpeg[:tables] + frame + jpeg[tables:]).message


@pytest.mark.parametrize("name", OTHERS)
def test_other_file_is_refused(name: str) -> None:
    """I6: whatever is not a JPEG, PNG or WebP is refused, though Pillow reads many of them."""
    assert isinstance(refusal(OTHERS[name]), ImageInvalid)


def test_rare_jpegs_are_refused() -> None:
    """Arithmetic and lossless coding, which no browser shows, are refused by their frame."""
    jpeg = encoded(scene(64, 64), "JPEG")
    for frame in (0xC3, 0xC9, 0xDE):
        error = refusal(jpeg.replace(b"\xff\xc0", bytes([0xFF, frame])))
        assert isinstance(error, ImageInvalid)
        assert "neither baseline nor progressive" in error.message


def test_file_size_is_bounded() -> None:
    """A file over the limit is 413, whichever way it came."""
    data = WHOLE["png"]
    assert isinstance(refusal(data, ImageLimits(max_bytes=len(data) - 1)), BodyTooLarge)
    decode(data, limits=ImageLimits(max_bytes=len(data)))


def test_parts_are_bounded() -> None:
    """Millions of tiny segments or chunks, each a step in Python, are refused early."""
    webp = WHOLE["webp-lossless"] + b"junk\0\0\0\0" * 1_000_000
    walks = [
        pictures.with_segments(WHOLE["jpeg"], b"\xff\xc4\0\2" * 1_000_000),
        with_chunks(WHOLE["png"], *[(b"teSt", b"")] * 100_000),
        b"RIFF" + struct.pack("<I", len(webp) - 8) + webp[8:],
    ]
    for data in walks:
        begin = time.process_time()
        assert "too many" in refusal(data).message
        assert time.process_time() - begin < 0.1


@pytest.mark.parametrize("num_frames", [1, 2, 500])
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animation_is_its_first_frame(file_format: str, num_frames: int) -> None:
    """I9: of an animation the first frame is taken, quickly, however many follow."""
    first = scene(64, 64)
    others = [Image.new("RGB", (64, 64), (i % 256, i // 256, 9)) for i in range(num_frames - 1)]
    data = encoded(first, file_format, save_all=True, append_images=others, lossless=True)
    begin = time.process_time()
    pixels = decode(data)
    assert time.process_time() - begin < 0.1
    assert np.array_equal(pixels, np.asarray(first))


@pytest.mark.parametrize(("file_format", "kind"), [("PNG", b"fcTL"), ("WEBP", b"ANMF")])
def test_later_frames_are_not_read(file_format: str, kind: bytes) -> None:
    """I9: a second frame of any size, or of junk, is not looked at."""
    first = scene(64, 64)
    data = bytearray(
        encoded(
            first,
            file_format,
            save_all=True,
            append_images=[scene(64, 64).rotate(90)],
            lossless=True,
        )
    )
    at = data.index(kind, data.index(kind) + 4)
    data[at + 8 : at + 30] = b"\xff" * 22
    assert np.array_equal(decode(bytes(data)), np.asarray(first))


SEEDS = [
    *WHOLE.values(),
    *(data for data, _ in GOLDEN.values()),
    pictures.with_jpeg_icc(WHOLE["jpeg"], P3),
    pictures.with_orientation(scene(16, 24), "JPEG", 6),
    encoded(scene(16, 16), "PNG", exif=pictures.exif_orientation(3), icc_profile=P3),
    encoded(scene(16, 16), "WEBP", exif=pictures.exif_orientation(3), icc_profile=P3),
    pictures.many_scans(12),
]


@settings(max_examples=600, deadline=None)
@given(seed=st.sampled_from(SEEDS), chance=st.integers(0, 2**32), checked=st.booleans())
def test_mutated_file_is_decoded_or_refused(seed: bytes, chance: int, checked: bool) -> None:
    """I13: a damaged file gives pixels or a refusal, and nothing else, not even a warning."""
    rng = random.Random(chance)
    data = mutated(seed, rng)
    if checked:
        data = with_right_checksums(data)
    try:
        pixels = read_picture(to_data_url(data, "png"), height=64, width=64, path=PATH)
    except (ImageInvalid, ImageTooLarge):
        return
    assert pixels.shape == (64, 64, 3)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, and now and then a stretch cut out, doubled, or taken from elsewhere."""
    damaged = bytearray(data)
    for _ in range(rng.choice([0, 1, 2, 8])):
        damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    begin, end = sorted(rng.choices(range(len(damaged) + 1), k=2))
    match rng.randrange(5):
        case 0:
            del damaged[begin : min(end, begin + 40)]
        case 1:
            damaged[begin:begin] = damaged[begin:end]
        case 2:
            damaged[begin:begin] = rng.randbytes(rng.randrange(40))
    return bytes(damaged)


def with_right_checksums(data: bytes) -> bytes:
    """A damaged PNG as someone sends it who computes the checksums after the damage."""
    if not data.startswith(b"\x89PNG"):
        return data
    mended, position = data[:8], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        content = data[position + 8 : position + 8 + length]
        mended += pictures.png_chunk(data[position + 4 : position + 8], content)
        position += 12 + length
    return mended
