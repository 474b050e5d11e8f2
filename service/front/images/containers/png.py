"""The chunks of a PNG file: W3C Recommendation, third edition."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from service.front.images.containers.container import Container, ImageLimits, MalformedError

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Pillow reads these to decode; a gamma or chromaticity it would ignore, so nothing is lost.
_NEEDED: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_GREY, _RGB = 0, 2


def _chunks(data: bytes, limits: ImageLimits) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of the content, its end) of every chunk that is sound, up to IEND."""
    position = len(SIGNATURE)
    for _ in range(limits.max_parts):
        if position + 12 > len(data):
            raise MalformedError("is cut short")
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        position = end + 4
        if position > len(data):
            raise MalformedError("is cut short")
        # Pillow itself leaves the checksums of the picture data unread.
        checksum = zlib.crc32(memoryview(data)[start - 4 : end])
        if checksum == int.from_bytes(data[end:position]):
            yield kind, start, end
        elif kind in _NEEDED:
            raise MalformedError("has a PNG chunk with a wrong checksum")
        if kind == b"IEND":
            return
    raise MalformedError("has too many PNG chunks")


def measure(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR" or len(data) < len(SIGNATURE) + 25:
        raise MalformedError("is a PNG without a header")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def strip(data: bytes, limits: ImageLimits) -> Container:
    """Without its animation: an APNG is the picture that viewers without animation show."""
    view = memoryview(data)
    kept: list[bytes | memoryview] = [SIGNATURE]
    exif = icc = b""
    for kind, start, end in _chunks(data, limits):
        if kind == b"tRNS":
            kept.append(_chunk(kind, _eight_bit_transparency(data, data[start:end])))
        elif kind in _NEEDED:
            kept.append(view[start - 8 : end + 4])
        elif kind == b"eXIf":
            exif = exif or data[start:end]
        elif kind == b"iCCP":
            icc = icc or data[start:end]  # the first alone: a thousand would inflate for seconds
    return Container(b"".join(kept), exif or None, _inflate_icc(icc, limits))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def _eight_bit_transparency(data: bytes, content: bytes) -> bytes:
    """A transparent grey or RGB colour at the depth of the samples that Pillow compares it with."""
    depth, colour = data[24], data[25]
    if colour == _GREY and depth in (2, 4):
        return struct.pack(">H", int.from_bytes(content[:2]) * 255 // (2**depth - 1) & 0xFFFF)
    if colour == _RGB and depth == 16:  # noqa: PLR2004 - bits
        return bytes(byte for high in content[0:6:2] for byte in (0, high))
    return content


def _inflate_icc(content: bytes, limits: ImageLimits) -> bytes | None:
    """The profile, unless it is broken or inflates to more than the limit."""
    _, _, compressed = content.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        icc = inflate.decompress(compressed[1:], limits.max_icc_bytes)
    except zlib.error:
        return None
    return icc if icc and inflate.eof else None
