"""EXIF: the one tag that is believed of a caller's picture, and the two that are written into ours.

Pillow's own reader is not asked: it warns once per broken tag, in thousands if a caller likes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Final

from PIL import Image

Metadata = Mapping[str, str | int | float]

SOFTWARE: Final = "instant-refine"

_IMAGE_DESCRIPTION, _ORIENTATION, _SOFTWARE = 0x010E, 0x0112, 0x0131
_ASCII, _SHORT = 2, 3
_UPRIGHT: Final = 1
_NUM_ORIENTATIONS: Final = 8


def read_orientation(exif: bytes | None) -> int:
    """1 to 8 as in EXIF, and 1 (upright) for whatever is missing or broken."""
    orientation = _read_tags(exif or b"").get(_ORIENTATION)
    if isinstance(orientation, int) and 1 <= orientation <= _NUM_ORIENTATIONS:
        return orientation
    return _UPRIGHT


def build_exif(metadata: Metadata) -> bytes:
    """`metadata` as JSON in ImageDescription, under our name in Software.

    The JSON is ASCII, as the tag is: what is not is escaped.
    """
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = json.dumps(dict(metadata), separators=(",", ":"), allow_nan=False)
    exif[_SOFTWARE] = SOFTWARE
    return exif.tobytes()


def parse_metadata(exif: bytes | None) -> dict[str, object] | None:
    """What `build_exif` was given, or None if this is not of our making."""
    tags = _read_tags(exif or b"")
    description = tags.get(_IMAGE_DESCRIPTION)
    if tags.get(_SOFTWARE) != SOFTWARE.encode() or not isinstance(description, bytes):
        return None
    try:
        metadata = json.loads(description)
    except (ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None


def _read_tags(exif: bytes) -> dict[int, int | bytes]:
    """The short numbers and texts of the first directory; it follows no link to another."""
    exif = exif.removeprefix(b"Exif\0\0")
    endian = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if endian is None:
        return {}
    try:
        (offset,) = struct.unpack_from(endian + "I", exif, 4)
        (num_tags,) = struct.unpack_from(endian + "H", exif, offset)
    except struct.error:
        return {}
    entry = struct.Struct(endian + "HHI4s")
    begin = offset + 2
    num_whole = min(num_tags, (len(exif) - begin) // entry.size)
    entries = exif[begin : begin + num_whole * entry.size]
    tags: dict[int, int | bytes] = {}
    for tag, kind, count, value in entry.iter_unpack(entries):
        if kind == _SHORT and count == 1:
            tags.setdefault(tag, struct.unpack_from(endian + "H", value)[0])
        elif kind == _ASCII and tag in (_IMAGE_DESCRIPTION, _SOFTWARE):
            tags.setdefault(tag, _text(exif, value, count, endian))
    return tags


def _text(exif: bytes, value: bytes, count: int, endian: str) -> bytes:
    if count > len(value):
        (offset,) = struct.unpack(endian + "I", value)
        value = exif[offset : offset + count]
    return value[:count].rstrip(b"\0")
