"""What each route makes of a picture, side by side with what it was given."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from docs.doodles import MUSHROOM, MUSHROOM_AND_TREE, draw, sheet
from docs.service import ask, to_data_url

_GAP = 6
_SUN = (352, 24, 472, 144)
_AROUND_SUN = (322, 0, 502, 174)
_DETAIL = (340, 250, 468, 378)  # of 512 x 512, whose twin is twice as large in an upscale


def write_routes(folder: Path, address: str) -> None:
    """Write route-refine.jpg, route-live.jpg, route-inpainting.jpg and route-upscale.jpg."""
    doodle, fields = draw(MUSHROOM_AND_TREE), {"prompt": MUSHROOM, "strength": 0.4}
    refined = ask(address, "lcm-instant-refine", doodle, **fields)
    pictures = {
        "refine": [doodle, refined],
        "live": [doodle, ask(address, "generations-lcm", doodle, **fields)],
        "inpainting": _inpaint(address, refined),
        "upscale": _upscale(address, refined),
    }
    for route, row in pictures.items():
        sheet([row], gap=_GAP).save(folder / f"route-{route}.jpg", quality=88)


def _inpaint(address: str, picture: Image.Image) -> list[Image.Image]:
    """Refine a sun that was drawn into a picture, and it alone: what was drawn, and the mask."""
    drawn, mask = picture.copy(), Image.new("L", picture.size)
    ImageDraw.Draw(drawn).ellipse(_SUN, fill="#e0261f")
    ImageDraw.Draw(mask).ellipse(_AROUND_SUN, fill=255)
    fields = {"prompt": "a red sun in the sky", "strength": 0.4}
    mask_url = to_data_url(mask)
    return [drawn, mask, ask(address, "lcm-inpainting", drawn, maskDataUrl=mask_url, **fields)]


def _upscale(address: str, picture: Image.Image) -> list[Image.Image]:
    """Return the picture, and one detail of it before and after."""
    large = ask(address, "lcm-upscale", picture, prompt=MUSHROOM)
    detail = large.crop(tuple(2 * edge for edge in _DETAIL))  # type: ignore[arg-type]  # four
    return [picture, picture.crop(_DETAIL), detail]
