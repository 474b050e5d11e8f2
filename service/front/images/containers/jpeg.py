"""The segments of a JPEG file: ITU-T T.81, annex B."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from service.front.images.containers.container import Container, ImageLimits, MalformedError

# Stuffed bytes, TEM and restarts stand alone; every other marker begins a segment.
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP1, _APP2, _APP13, _APP15 = 0xE1, 0xE2, 0xED, 0xEF
# Baseline, extended and progressive Huffman coding: what browsers show. The other frames (lossless,
# hierarchical, arithmetic) occur in attacks, not in photographs.
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_FRAMES: Final = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xDE}
_PROGRESSIVE: Final = 0xC2

_Segment = tuple[int, int, int]  # marker, first byte of the content, end


def _segments(data: bytes, limits: ImageLimits) -> Iterator[_Segment]:
    """All segments through all scans; the last is the end of the image."""
    position, num_scans = 2, 0
    for _ in range(limits.max_parts):
        found = _MARKER.search(data, position)
        if found is None:
            raise MalformedError("is cut short")
        marker, start = found[0][1], found.end()
        if marker == _EOI:
            yield marker, start, start
            return
        position = start + int.from_bytes(data[start : start + 2])
        if marker == _SOI or not start + 2 <= position <= len(data):
            raise MalformedError("has a broken JPEG segment")
        if marker in _OTHER_FRAMES:
            raise MalformedError("is a JPEG that is neither baseline nor progressive")
        # Every scan may pass over all pixels: a 219 kB file of 20,000 scans takes seconds.
        num_scans += marker == _SOS
        if num_scans > limits.max_scans:
            raise MalformedError(f"is a JPEG of more than {limits.max_scans} scans")
        yield marker, start + 2, position
    raise MalformedError("has too many JPEG segments")


def measure(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    for marker, start, end in _segments(data, limits):
        if marker in _FRAMES and start + 5 <= end:
            height, width = struct.unpack_from(">HH", data, start + 1)
            return height, width
    raise MalformedError("is a JPEG without a frame")


def strip(data: bytes, limits: ImageLimits) -> Container:
    segments = list(_segments(data, limits))
    markers = [marker for marker, _, _ in segments]
    if _SOS not in markers:
        raise MalformedError("is a JPEG without a scan")
    first_scan = markers.index(_SOS)
    header = segments[:first_scan]
    kept = [data[start - 4 : end] for marker, start, end in header if not _is_metadata(marker)]
    scans = memoryview(data)[segments[first_scan][1] - 4 : segments[-1][2]]
    return Container(
        b"".join((b"\xff\xd8", *kept, scans)),
        _exif(data, header),
        _icc(data, header, limits),
        _PROGRESSIVE in markers,
    )


def _is_metadata(marker: int) -> bool:
    """Whether libjpeg decodes without it: all but JFIF (APP0) and Adobe's colour flag (APP14)."""
    return _APP1 <= marker <= _APP13 or marker in (_APP15, _COM)


def _exif(data: bytes, header: list[_Segment]) -> bytes | None:
    for marker, start, end in header:
        if marker == _APP1 and data.startswith(b"Exif\0\0", start):
            return data[start:end]
    return None


def _icc(data: bytes, header: list[_Segment], limits: ImageLimits) -> bytes | None:
    """The profile joined from its numbered parts (ICC.1, B.4), or None if one is missing."""
    prefix = b"ICC_PROFILE\0"
    parts: dict[int, bytes] = {}
    for marker, start, end in header:
        if marker == _APP2 and data.startswith(prefix, start) and start + len(prefix) + 2 <= end:
            number = data[start + len(prefix)]
            parts[number] = data[start + len(prefix) + 2 : end]
    icc = b"".join(parts[number] for number in sorted(parts))
    is_whole = sorted(parts) == list(range(1, len(parts) + 1))
    return icc if icc and is_whole and len(icc) <= limits.max_icc_bytes else None
