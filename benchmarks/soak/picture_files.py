"""Valid and hostile image files, all made here: none is stored."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Chunk = tuple[bytes, bytes]

# How Pillow writes each format with the least loss.
_BEST: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}

# Colorants adapted to D50, rows X Y Z, columns red green blue.
P3_TO_XYZ = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def scene(height: int, width: int) -> Image.Image:
    """Return an image without symmetry: each rotation and crop of it looks different."""
    y, x = np.mgrid[0:height, 0:width]
    red = x * 255 / max(1, width - 1)
    green = y * 255 / max(1, height - 1)
    blue = 127 + 60 * np.sin(x / 9) * np.cos(y / 13)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def flat(mode: str, colour: float | tuple[int, ...], file_format: str = "PNG") -> bytes:
    """Return 8 x 8 pixels of one colour, lossless (a JPEG of one colour is off by one level)."""
    return encoded(Image.new(mode, (8, 8), colour), file_format, **_BEST.get(file_format, {}))


# JPEG


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def with_jpeg_icc(jpeg: bytes, icc: bytes) -> bytes:
    parts = [icc[i : i + 65_000] for i in range(0, len(icc), 65_000)]
    return with_segments(
        jpeg,
        *(
            jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part)
            for number, part in enumerate(parts, 1)
        ),
    )


def many_scans(num_scans: int) -> bytes:
    """Return a progressive JPEG that repeats its last, nearly empty scan."""
    jpeg = encoded(Image.new("L", (512, 512), 90), "JPEG", progressive=True)
    last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last_scan * (num_scans - jpeg.count(b"\xff\xda")) + jpeg[-2:]


# PNG


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, chunks: Sequence[Chunk] = ()
) -> bytes:
    """Return a PNG of raw rows, each with its filter byte, of a depth and colour type."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def png_pixel(depth: int, colour: int, *samples: int, chunks: Sequence[Chunk] = ()) -> bytes:
    """Return a PNG of one pixel, its samples given at their depth."""
    packed = struct.pack(">B", 0)
    if depth < 8:
        packed += bytes([samples[0] << (8 - depth)])
    else:
        packed += b"".join(sample.to_bytes(depth // 8) for sample in samples)
    return png(1, 1, depth, colour, packed, chunks=chunks)


def with_chunks(picture: bytes, *chunks: Chunk) -> bytes:
    """Return a PNG with chunks inserted after its header."""
    return picture[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + picture[33:]


# EXIF and ICC


def exif_entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def exif(*entries: bytes, next_directory: int = 0, padding: int = 0) -> bytes:
    directory = struct.pack("<H", len(entries)) + b"".join(entries)
    tail = struct.pack("<I", next_directory) + b"\0" * padding
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + tail


def exif_orientation(orientation: int) -> bytes:
    return exif(exif_entry(0x0112, 3, 1, orientation))


def with_orientation(picture: Image.Image, file_format: str, orientation: int) -> bytes:
    options = _BEST.get(file_format, {})
    return encoded(picture, file_format, exif=exif_orientation(orientation), **options)


def srgb_to_linear(level: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    curved = 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, curved)


def _icc(colour_space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    position = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", name, position + len(body), len(content))
        body += padded
    header = struct.pack(">I4sI", position + len(body), b"none", 0x02400000)
    header += kind + colour_space + pcs + bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + table + body


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def rgb_icc(to_xyz: npt.NDArray[np.float64]) -> bytes:
    """Return an RGB profile with these colorants and the curve of sRGB."""
    levels = srgb_to_linear(np.linspace(0, 1, 1024))
    curve = b"curv\0\0\0\0" + struct.pack(">I", len(levels))
    curve += b"".join(struct.pack(">H", round(level * 65535)) for level in levels)
    red, green, blue = (_xyz(column) for column in to_xyz.T.tolist())
    tags = {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue, b"wtpt": _xyz((0.9642, 1, 0.8249))}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return _icc(b"RGB ", b"XYZ ", b"mntr", tags)


def linear_grey_icc() -> bytes:
    """Return a grey profile of gamma 1."""
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    return _icc(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve, b"wtpt": _xyz((0.9642, 1, 0.8249))})


def black_ink_icc() -> bytes:
    """Return a CMYK profile whose lightness is 100 - K; the three colours print nothing."""
    ramp = bytes(range(256))
    nodes = b"".join(bytes([0 if node & 1 else 255, 128, 128]) for node in range(16))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + nodes + ramp * 3
    return _icc(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table, b"wtpt": _xyz((0.9642, 1, 0.8249))})


# Bombs: few bytes, many pixels


def webp_bomb(side: int) -> bytes:
    """Return one lossless colour: 34 bytes for any size up to 16384."""
    bomb = bytearray(encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    bits = int.from_bytes(bomb[21:25], "little") & ~0xFFFFFFF
    bomb[21:25] = (bits | (side - 1) << 14 | (side - 1)).to_bytes(4, "little")
    return bytes(bomb)


def webp_canvas_bomb(side: int) -> bytes:
    """Return an animation that declares a canvas far larger than its frame."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    bomb = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    bomb[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(bomb)


def jpeg_bomb(side: int) -> bytes:
    bomb = bytearray(flat("L", 90, "JPEG"))
    frame = bomb.index(b"\xff\xc0")
    bomb[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(bomb)


def bombs() -> dict[str, bytes]:
    return {
        "webp-lossless": webp_bomb(9400),
        "webp-canvas": webp_canvas_bomb(16_000),
        "png-65535": png(65535, 65535, 8, 2, b""),
        "png-line": png(2**31 - 1, 1, 8, 2, b""),
        "png-without-data": png(65535, 65535, 8, 2, b"")[:33],
        "jpeg-frame": jpeg_bomb(65500),
        "png-one-column-over": png(4103, 4095, 1, 0, b""),
    }
