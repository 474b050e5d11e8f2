"""The chunks of a WebP file: RFC 9649."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from service.front.images.containers.container import Container, ImageLimits, MalformedError

_NEEDED: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
_VP8X_BYTES: Final = 10


def _chunks(data: bytes, limits: ImageLimits) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of the content, its end) of every chunk."""
    whole = 8 + int.from_bytes(data[4:8], "little")
    if whole > len(data):
        raise MalformedError("is cut short")
    position = 12
    for _ in range(limits.max_parts):
        if position >= whole:
            return
        start = position + 8
        end = start + int.from_bytes(data[position + 4 : start], "little")
        if end > whole:
            raise MalformedError("is cut short")
        yield data[position : position + 4], start, end
        position = end + end % 2  # the whole file is even up to here, so this is the padding
    raise MalformedError("has too many WebP chunks")


def measure(data: bytes) -> tuple[int, int]:
    kind, content = data[12:16], data[20:30]
    if kind == b"VP8X" and len(content) == _VP8X_BYTES:
        width, height = content[4:7], content[7:10]
        return 1 + int.from_bytes(height, "little"), 1 + int.from_bytes(width, "little")
    if kind == b"VP8L" and content.startswith(b"\x2f"):
        bits = int.from_bytes(content[1:5], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":
        width, height = content[6:8], content[8:10]
        return int.from_bytes(height, "little") & 0x3FFF, int.from_bytes(width, "little") & 0x3FFF
    raise MalformedError("is a WebP without a picture")


def strip(data: bytes, limits: ImageLimits) -> Container:
    """With the first frame alone, if it is an animation.

    The flags of VP8X still announce what was taken out; libwebp goes by what there is.
    """
    kept: list[bytes] = []
    found: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(data, limits):
        if kind in _NEEDED and kind not in found:
            kept.append(_chunk(kind, data[start:end]))
        found.setdefault(kind, data[start:end])
    body = b"WEBP" + b"".join(kept)
    icc = found.get(b"ICCP")
    return Container(
        b"RIFF" + struct.pack("<I", len(body)) + body,
        found.get(b"EXIF"),
        icc if icc and len(icc) <= limits.max_icc_bytes else None,
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
