"""The input and output of each route, side by side."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from docs.doodles import MUSHROOM, MUSHROOM_AND_TREE, draw, sheet
from docs.service import refine, to_data_url

_GAP = 6
_SUN = (352, 24, 472, 144)
_AROUND_SUN = (322, 0, 502, 174)
_DETAIL = (340, 250, 468, 378)  # of 512 x 512, twice as large after an upscale


def write_routes(folder: Path, address: str) -> None:
    """Write route-refine.jpg, route-live.jpg, route-inpainting.jpg and route-upscale.jpg."""
    doodle, fields = draw(MUSHROOM_AND_TREE), {"prompt": MUSHROOM, "strength": 0.4}
    refined = refine(address, "lcm-instant-refine", doodle, **fields)
    rows = {
        "refine": [doodle, refined],
        "live": [doodle, refine(address, "generations-lcm", doodle, **fields)],
        "inpainting": _inpaint(address, refined),
        "upscale": _upscale(address, refined),
    }
    for route, row in rows.items():
        sheet([row], gap=_GAP).save(folder / f"route-{route}.jpg", quality=88)


def _inpaint(address: str, image: Image.Image) -> list[Image.Image]:
    """Draw a flat sun into an image and refine the area around it."""
    drawn, mask = image.copy(), Image.new("L", image.size)
    ImageDraw.Draw(drawn).ellipse(_SUN, fill="#e0261f")
    ImageDraw.Draw(mask).ellipse(_AROUND_SUN, fill=255)
    fields = {"prompt": "a red sun in the sky", "strength": 0.4}
    mask_url = to_data_url(mask)
    return [drawn, mask, refine(address, "lcm-inpainting", drawn, maskDataUrl=mask_url, **fields)]


def _upscale(address: str, image: Image.Image) -> list[Image.Image]:
    """Return the image, and one detail of it before and after the upscale."""
    large = refine(address, "lcm-upscale", image, prompt=MUSHROOM)
    detail = large.crop(tuple(2 * edge for edge in _DETAIL))  # type: ignore[arg-type]  # four
    return [image, image.crop(_DETAIL), detail]
