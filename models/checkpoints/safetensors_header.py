"""safetensors files, looked at before anything is loaded from them."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from models.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 16 << 20
"""A header names tensors: that of SDXL's UNet takes 0.2 MB. The format itself allows 100 MB."""


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file that is whole: its tensors by name, its metadata.

    Raises CheckpointError for a file that is missing, cut short, or no safetensors at all.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LENGTH.size)
            header_bytes = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
            if header_bytes > min(_MAX_HEADER_BYTES, size - _LENGTH.size):
                raise CheckpointError(f"{_shown(path)} is cut short, or no safetensors file")
            header: dict[str, Any] = json.loads(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for entry in _tensors(header).values()]
        if size != _LENGTH.size + header_bytes + max(ends, default=0):
            raise CheckpointError(f"{_shown(path)} is cut short: download it again")
    except OSError as error:
        raise CheckpointError(f"{_shown(path)} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{_shown(path)} is no safetensors file") from error
    return header


def num_parameters(path: Path) -> int:
    """Return how many numbers a safetensors file holds. Raises as `read_header`."""
    tensors = _tensors(read_header(path)).values()
    return sum(math.prod(entry["shape"]) for entry in tensors)


def _tensors(header: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _shown(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
