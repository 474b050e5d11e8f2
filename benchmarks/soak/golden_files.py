"""Image files of every mode with the colours they show, whole files to damage, and other files."""

from __future__ import annotations

import struct

from PIL import Image

from benchmarks.soak import picture_files as pictures
from benchmarks.soak.picture_files import encoded, flat, png_pixel, scene, with_chunks

Colour = tuple[int, int, int]


GREY_TRANSPARENT = [(b"tRNS", struct.pack(">H", 100))]
PALETTE = (b"PLTE", bytes([10, 20, 30, 200, 100, 50]))


GOLDEN: dict[str, tuple[bytes, Colour]] = {
    "rgb": (flat("RGB", (10, 120, 250)), (10, 120, 250)),
    "rgb-jpeg": (flat("RGB", (10, 120, 250), "JPEG"), (10, 120, 250)),
    "rgb-webp": (flat("RGB", (10, 120, 250), "WEBP"), (10, 120, 250)),
    "grey": (flat("L", 100), (100, 100, 100)),
    "grey-jpeg": (flat("L", 100, "JPEG"), (100, 100, 100)),
    "one-bit": (png_pixel(1, 0, 1), (255, 255, 255)),
    "one-bit-black": (png_pixel(1, 0, 0), (0, 0, 0)),
    "one-bit-transparent": (png_pixel(1, 0, 0, chunks=[(b"tRNS", b"\0\0")]), (255, 255, 255)),
    "two-bits": (png_pixel(2, 0, 2), (170, 170, 170)),
    "two-bits-transparent": (png_pixel(2, 0, 2, chunks=[(b"tRNS", b"\0\2")]), (255, 255, 255)),
    "four-bits": (png_pixel(4, 0, 9), (153, 153, 153)),
    "four-bits-opaque": (png_pixel(4, 0, 9, chunks=[(b"tRNS", b"\0\x08")]), (153, 153, 153)),
    "grey-transparent": (png_pixel(8, 0, 100, chunks=GREY_TRANSPARENT), (255, 255, 255)),
    "grey-opaque": (png_pixel(8, 0, 101, chunks=GREY_TRANSPARENT), (101, 101, 101)),
    "rgb-transparent": (
        png_pixel(8, 2, 1, 2, 3, chunks=[(b"tRNS", bytes([0, 1, 0, 2, 0, 3]))]),
        (255, 255, 255),
    ),
    "rgb-opaque": (
        png_pixel(8, 2, 1, 2, 4, chunks=[(b"tRNS", bytes([0, 1, 0, 2, 0, 3]))]),
        (1, 2, 4),
    ),
    "palette": (png_pixel(8, 3, 1, chunks=[PALETTE]), (200, 100, 50)),
    "palette-one-bit": (png_pixel(1, 3, 0, chunks=[PALETTE]), (10, 20, 30)),
    "palette-transparent": (
        png_pixel(8, 3, 1, chunks=[PALETTE, (b"tRNS", b"\xff\0")]),
        (255, 255, 255),
    ),
    "palette-half": (
        png_pixel(8, 3, 1, chunks=[PALETTE, (b"tRNS", b"\xff\x80")]),
        (227, 177, 152),
    ),
    "grey-alpha": (flat("LA", (100, 128)), (177, 177, 177)),
    "grey-alpha-16": (png_pixel(16, 4, 100 * 257, 128 * 257), (177, 177, 177)),
    "red-under-alpha-0": (flat("RGBA", (255, 0, 0, 0)), (255, 255, 255)),
    "red-half": (flat("RGBA", (255, 0, 0, 128)), (255, 127, 127)),
    "red-half-webp": (flat("RGBA", (255, 0, 0, 128), "WEBP"), (255, 127, 127)),
    "rgba-16": (png_pixel(16, 6, 65535, 0, 0, 128 * 257), (255, 127, 127)),
    "grey-16": (png_pixel(16, 0, 1000), (4, 4, 4)),
    "grey-16-white": (png_pixel(16, 0, 65535), (255, 255, 255)),
    "grey-16-transparent": (
        png_pixel(16, 0, 1000, chunks=[(b"tRNS", struct.pack(">H", 1000))]),
        (255, 255, 255),
    ),
    "rgb-16": (png_pixel(16, 2, 1000, 30_000, 65535), (4, 117, 255)),
    "rgb-16-transparent": (
        png_pixel(
            16, 2, 1000, 2000, 3000, chunks=[(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))]
        ),
        (255, 255, 255),
    ),
    "gamma": (with_chunks(flat("L", 100), (b"gAMA", struct.pack(">I", 100_000))), (100, 100, 100)),
    "cmyk": (flat("CMYK", (255, 0, 0, 0), "JPEG"), (0, 255, 255)),
    "cmyk-black": (flat("CMYK", (0, 0, 0, 255), "JPEG"), (0, 0, 0)),
    "cmyk-mixed": (flat("CMYK", (0, 100, 0, 100), "JPEG"), (155, 94, 155)),
    # Stored inverted as Y 200, Cb 128, Cr 128, K 255: grey of 255 - 200 without black.
    "ycck": (
        flat("CMYK", (55, 127, 127, 0), "JPEG").replace(
            b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"
        ),
        (55, 55, 55),
    ),
    "linear-grey-profile": (
        encoded(Image.new("L", (8, 8), 128), "PNG", icc_profile=pictures.linear_grey_icc()),
        (188, 188, 188),
    ),
    "cmyk-profile": (
        pictures.with_jpeg_icc(flat("CMYK", (255, 0, 0, 128), "JPEG"), pictures.black_ink_icc()),
        (118, 118, 118),
    ),
}


WHOLE = {
    "jpeg": encoded(scene(64, 64), "JPEG"),
    "jpeg-progressive": encoded(scene(64, 64), "JPEG", progressive=True),
    "png": encoded(scene(64, 64), "PNG"),
    "webp": encoded(scene(64, 64), "WEBP"),
    "webp-lossless": encoded(scene(64, 64), "WEBP", lossless=True),
    "webp-alpha": encoded(scene(64, 64).convert("RGBA"), "WEBP", exif=pictures.exif_orientation(6)),
}


P3 = pictures.rgb_icc(pictures.P3_TO_XYZ)

# Files that Pillow or another program reads, and this service does not.
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
OTHERS = {
    "empty": b"",
    "text": b"hello",
    "html": b"<!doctype html><script>alert(1)</script>",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "zip": b"PK\x03\x04" + bytes(26),
    "svg": SVG + b'<image xlink:href="file:///etc/passwd"/></svg>',
    "svg-entities": b'<!DOCTYPE s [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "psd": b"8BPS\0\1" + bytes(20),
    "heic": b"\0\0\0\x18ftypheic" + bytes(12),
    "mpo-jumble": b"\xff\xd8\xff\xe2\0\x08MPF\0\0\0\xff\xd9",
    "riff-of-sound": b"RIFF\x04\0\0\0WAVE",
    "webp-of-nothing": b"RIFF\x04\0\0\0WEBP",
    "png-of-nothing": b"\x89PNG\r\n\x1a\n",
    "gif-and-script": encoded(Image.new("P", (8, 8)), "GIF") + b"/*<script>*/",
    **{
        name: encoded(Image.new("RGB", (16, 16), "red"), name.upper())
        for name in ("gif", "tiff", "bmp", "ico", "avif", "jpeg2000", "ppm", "tga", "pcx")
    },
}
