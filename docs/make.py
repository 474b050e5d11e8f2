"""Write what the README generates: the table of settings, the doodles, and what comes of them.

python -m docs.make              (make docs; the page is drawn where Chromium is installed)
python -m docs.make --no-pictures
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from docs.canvas import write_screenshots
from models.training.renderers import DOODLE, render
from models.training.world import Scene, Thing
from service.settings import settings_table

_ROOT = Path(__file__).parent.parent
_IMAGES = _ROOT / "docs" / "images"
_COMMAND = Path(sys.executable).with_name("instant-refine")
_TABLE = re.compile(r"(<!-- written by make docs -->\n).*?(<!-- end -->)", re.DOTALL)
_SHOWN_SIDE = 256

DOODLES = {
    "a red house in a meadow": Scene("meadow", (Thing("house", "red", 0.5, 0.56, 0.3),), seed=1),
    "an orange fish in the sea": Scene("sea", (Thing("fish", "orange", 0.5, 0.6, 0.3),), seed=2),
    "a yellow moon at night": Scene("night", (Thing("moon", "yellow", 0.55, 0.42, 0.28),), seed=3),
}
STYLES = ["NONE", "ANIME", "RENDER_3D", "SKETCH_BW", "FANTASY_ART"]


def write_settings() -> None:
    """Put the generated table between its marks."""
    readme = _ROOT / "README.md"
    text, count = _TABLE.subn(
        lambda match: match[1] + settings_table() + match[2], readme.read_text("utf-8")
    )
    if count != 1:
        raise SystemExit("README.md has lost the marks around its settings")
    readme.write_text(text, "utf-8")


def write_pictures() -> None:
    """Draw the doodles, refine each in each style, and lay all on one sheet."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (prompt, scene) in enumerate(track(DOODLES.items(), "refining")):
            doodle = draw(scene)
            if index == 0:
                doodle.save(_IMAGES / "doodle.jpg", quality=90)
            source = Path(folder) / "doodle.png"
            doodle.save(source)
            rows.append([doodle, *(refine(source, prompt, style) for style in STYLES)])
    sheet(rows).save(_IMAGES / "before-after.jpg", quality=88)


def draw(scene: Scene) -> Image.Image:
    """Draw a scene as a doodle of 512 x 512 pixels."""
    pixels = render([scene], DOODLE, (512, 512))[0]  # [3, H, W], 0 to 1
    return Image.fromarray((pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def refine(source: Path, prompt: str, style: str) -> Image.Image:
    """Refine a file by the command line, as a reader would."""
    output = source.with_name(f"{style}.png")
    arguments = ["--prompt", prompt, "--style", style, "--seed", "7", "--strength", "0.6"]
    subprocess.run([_COMMAND, "refine", source, *arguments, "-o", output], check=True)
    with Image.open(output) as image:
        return image.copy()


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Lay pictures out in rows."""
    side = _SHOWN_SIDE
    paper = Image.new("RGB", (side * len(rows[0]), side * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            paper.paste(image.resize((side, side), Image.Resampling.LANCZOS), (x * side, y * side))
    return paper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-pictures", action="store_true", help="the table of settings alone")
    write_settings()
    if not parser.parse_args().no_pictures:
        _IMAGES.mkdir(exist_ok=True)
        write_pictures()
        write_screenshots(_IMAGES)


if __name__ == "__main__":
    main()
