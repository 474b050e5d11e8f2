"""Write the generated parts of the documents: tables, doodles, refined images, screenshots.

python -m docs.make                 (make docs; screenshots need Chromium)
python -m docs.make --no-images     (tables only)
python -m docs.make --only thumbnails
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.progress import track

from docs.canvas import write_screenshots
from docs.doodles import DOODLES, HOUSE, draw, sheet
from docs.routes import write_routes
from docs.service import refine, running_service
from docs.tables import ROOT, write_tables
from docs.thumbnails import write_missing_thumbnails, write_thumbnails

_IMAGES = ROOT / "docs" / "images"
_STYLES = ["NONE", "ANIME", "RENDER_3D", "SKETCH_BW", "FANTASY_ART"]


def write_before_after(address: str) -> None:
    """Draw the doodles, refine each in each style, and lay all out on one sheet."""
    draw(DOODLES[HOUSE]).save(_IMAGES / "doodle.jpg", quality=90)
    rows = []
    for prompt, scene in track(DOODLES.items(), "refining doodles"):
        doodle = draw(scene)
        refined = [
            refine(address, "lcm-instant-refine", doodle, prompt=prompt, style=style, strength=0.6)
            for style in _STYLES
        ]
        rows.append([doodle, *refined])
    sheet(rows).save(_IMAGES / "before-after.jpg", quality=88)


WRITERS: dict[str, Callable[[str], None]] = {
    "thumbnails": write_thumbnails,
    "doodles": write_before_after,
    "routes": lambda address: write_routes(_IMAGES, address),
    "canvas": lambda address: write_screenshots(_IMAGES, address),
}
"""Writers of images, given a service's address. Thumbnails come first: the page shows them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-images", action="store_true", help="tables only")
    parser.add_argument("--only", choices=WRITERS, action="append", help="these images only")
    arguments = parser.parse_args()
    write_tables()
    if arguments.no_images:
        return
    _IMAGES.mkdir(exist_ok=True)
    write_missing_thumbnails()
    for name in arguments.only or WRITERS:
        with running_service() as address:  # a new one for each, which reads new thumbnails
            WRITERS[name](address)


if __name__ == "__main__":
    main()
