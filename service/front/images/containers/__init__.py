"""The three file formats that pictures arrive in, read by hand as far as it takes to distrust them.

A file is measured by its header before anything is allocated, then stripped: what remains is the
coded picture alone, and only that reaches a codec. Metadata parsers, later frames, trailing files
and whatever hides in them are out of reach by that. Nothing here decodes a pixel.
"""

from __future__ import annotations

from service.front.images.containers import jpeg, png, webp
from service.front.images.containers.container import Container, Format, ImageLimits, MalformedError

__all__ = ["Container", "Format", "ImageLimits", "MalformedError", "measure", "sniff", "strip"]


def sniff(data: bytes) -> Format:
    """The format by its first bytes, whatever was declared. Raises MalformedError for any other."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(png.SIGNATURE):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    raise MalformedError("is not a JPEG, PNG or WebP picture")


def measure(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """(height, width) as stored, by the header alone. Raises MalformedError."""
    match sniff(data):
        case "jpeg":
            return jpeg.measure(data, limits)
        case "png":
            return png.measure(data)
        case "webp":
            return webp.measure(data)


def strip(data: bytes, limits: ImageLimits) -> Container:
    """The coded picture, its EXIF and its ICC profile out of the whole file.

    Raises MalformedError, also for a file that ends early.
    """
    match sniff(data):
        case "jpeg":
            return jpeg.strip(data, limits)
        case "png":
            return png.strip(data, limits)
        case "webp":
            return webp.strip(data, limits)
