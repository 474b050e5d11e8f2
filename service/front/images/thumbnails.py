"""The styles' small pictures: read and checked at the start, and served by the style's name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from models.styles.presets import Style
from service.errors import RefineError
from service.front.images.codec import decode_image
from service.front.images.containers import sniff

_MAX_BYTES: Final = 1 << 16
_MAX_SIDE: Final = 512
_KEPT: Final = "private, max-age=31536000, immutable"
_ASKED_ABOUT: Final = "private, no-cache"


@dataclass(frozen=True)
class Thumbnail:
    """A file of a few kilobytes, and a tag of its content."""

    content: bytes
    media_type: str
    tag: str

    def url(self, style: str) -> str:
        """Return the path that it is served at, which changes with its content."""
        return f"/v1/styles/{quote(style, safe='')}/thumbnail?v={self.tag}"

    def headers(self, asked_tag: str | None) -> dict[str, str]:
        """Return what a cache needs to know: for good under its own tag, else to be asked about."""
        control = _KEPT if asked_tag == self.tag else _ASKED_ABOUT
        return {
            "ETag": f'"{self.tag}"',
            "Cache-Control": control,
            "X-Content-Type-Options": "nosniff",
        }


def read_thumbnails(styles: Mapping[str, Style]) -> Mapping[str, Thumbnail]:
    """Read the pictures of the styles that have one.

    Raises CheckpointError, with line and field, for a file that is no small picture.
    """
    return {
        name: _read(style, style.thumbnail) for name, style in styles.items() if style.thumbnail
    }


def _read(style: Style, path: str) -> Thumbnail:
    name = Path(path).name
    try:
        content = Path(path).read_bytes()
        if len(content) > _MAX_BYTES:
            raise style.fault("thumbnail", f"{name} is over {_MAX_BYTES >> 10} kB")
        height, width, _ = decode_image(content, path=name).shape
    except OSError as error:
        raise style.fault("thumbnail", f"{name} cannot be read: {error.strerror}") from error
    except RefineError as error:
        raise style.fault("thumbnail", error.message) from error
    if max(height, width) > _MAX_SIDE:
        raise style.fault("thumbnail", f"{name} is over {_MAX_SIDE} pixels on a side")
    tag = hashlib.sha256(content).hexdigest()[:16]
    return Thumbnail(content, f"image/{sniff(content)}", tag)
