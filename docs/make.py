"""Write what the documents generate: tables, the doodles, and what comes of them.

python -m docs.make              (make docs; the page is drawn where Chromium is installed)
python -m docs.make --no-pictures   (the tables alone)
python -m docs.make --only thumbnails
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from rich.progress import track

from docs.canvas import write_screenshots
from docs.doodles import DOODLES, HOUSE, draw, sheet
from docs.routes import write_routes
from docs.service import ask, running_service
from docs.thumbnails import write_missing_thumbnails, write_thumbnails
from models.catalog import catalog_table, sources_table
from service.settings import settings_table

_ROOT = Path(__file__).parent.parent
_IMAGES = _ROOT / "docs" / "images"
_TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "checkpoints": catalog_table,
    "sources": sources_table,
}
_STYLES = ["NONE", "ANIME", "RENDER_3D", "SKETCH_BW", "FANTASY_ART"]


def write_tables() -> None:
    """Put the generated tables between their marks, in every document that has them."""
    for document in (_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))):
        before = document.read_text("utf-8")
        if (after := with_tables(before)) != before:
            document.write_text(after, "utf-8")


def with_tables(text: str) -> str:
    """Return a document with its generated tables as they are now."""
    for name, table in _TABLES.items():
        marks = re.compile(
            rf"(<!-- {name}, written by make docs -->\n).*?(<!-- end -->)", re.DOTALL
        )
        text = marks.sub(lambda match, table=table: match[1] + table() + match[2], text)  # type: ignore[misc]
    return text


def write_doodles(address: str) -> None:
    """Draw the doodles, refine each in each style, and lay all on one sheet."""
    draw(DOODLES[HOUSE]).save(_IMAGES / "doodle.jpg", quality=90)
    rows = []
    for prompt, scene in track(DOODLES.items(), "refining doodles"):
        doodle = draw(scene)
        refined = [
            ask(address, "lcm-instant-refine", doodle, prompt=prompt, style=style, strength=0.6)
            for style in _STYLES
        ]
        rows.append([doodle, *refined])
    sheet(rows).save(_IMAGES / "before-after.jpg", quality=88)


PICTURES: dict[str, Callable[[str], None]] = {
    "thumbnails": write_thumbnails,
    "doodles": write_doodles,
    "routes": lambda address: write_routes(_IMAGES, address),
    "canvas": lambda address: write_screenshots(_IMAGES, address),
}
"""What is drawn, by the service at an address. The page shows the thumbnails: they come first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-pictures", action="store_true", help="the tables alone")
    parser.add_argument("--only", choices=PICTURES, action="append", help="these pictures alone")
    arguments = parser.parse_args()
    write_tables()
    if arguments.no_pictures:
        return
    _IMAGES.mkdir(exist_ok=True)
    write_missing_thumbnails()
    for name in arguments.only or PICTURES:
        with running_service() as address:  # a new one, which reads the thumbnails again
            PICTURES[name](address)


if __name__ == "__main__":
    main()
