"""The thumbnail of each style: one doodle, refined by the bundled checkpoint."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from rich.progress import track

from docs.doodles import MUSHROOM, MUSHROOM_AND_TREE, draw
from docs.service import refine
from models.styles.presets import Style, load_styles

_SIDE = 128
_STRENGTH = 0.5


def write_thumbnails(address: str) -> None:
    """Write the thumbnails that the styles' file names."""
    doodle = draw(MUSHROOM_AND_TREE)
    for style in track(load_styles().values(), "drawing thumbnails"):
        fields = {"prompt": MUSHROOM, "style": style.name, "strength": _STRENGTH}
        _save(refine(address, "lcm-instant-refine", doodle, **fields), style)


def write_missing_thumbnails() -> None:
    """Write the doodle where a new style has no thumbnail yet: the service needs one to start."""
    for style in load_styles().values():
        if style.thumbnail is not None and not Path(style.thumbnail).exists():
            _save(draw(MUSHROOM_AND_TREE), style)


def _save(image: Image.Image, style: Style) -> None:
    if style.thumbnail is not None:
        path = Path(style.thumbnail)
        path.parent.mkdir(exist_ok=True)
        image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(path, quality=82, method=6)
