"""A drawing as strokes with times, and a canvas that draws it point by point.

`drawing.json` holds a house under a sun: for each stroke a colour, a width and its points as
[milliseconds, x, y], one each 16 ms or so, slower at the ends of a stroke, with pauses between.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

_FILE = Path(__file__).parent / "drawing.json"
_QUALITY = 85  # a browser's own, when asked for a JPEG without a number, is 92

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Point:
    """The pen at a time. `before` is the point before it, None where a stroke begins."""

    at_ms: float
    x: int
    y: int
    before: tuple[int, int] | None
    colour: Colour
    width: int


@dataclass(frozen=True)
class Drawing:
    """All points in the order of their times."""

    size: tuple[int, int]
    background: Colour
    points: tuple[Point, ...]

    def up_to(self, at_ms: float) -> Drawing:
        """Return the drawing up to a time."""
        points = tuple(point for point in self.points if point.at_ms <= at_ms)
        return Drawing(self.size, self.background, points)


def load_drawing() -> Drawing:
    """Return the drawing of this folder."""
    content: dict[str, Any] = json.loads(_FILE.read_text())
    points: list[Point] = []
    for stroke in content["strokes"]:
        before = None
        for at_ms, x, y in stroke["points"]:
            points.append(Point(at_ms, x, y, before, tuple(stroke["colour"]), stroke["width"]))
            before = (x, y)
    size = (content["width"], content["height"])
    return Drawing(size, tuple(content["background"]), tuple(points))


class Canvas:
    """The points of a drawing that are drawn so far."""

    def __init__(self, drawing: Drawing) -> None:
        self._points = drawing.points
        self._image = Image.new("RGB", drawing.size, drawing.background)
        self._brush = ImageDraw.Draw(self._image)
        self.num_drawn = 0

    @property
    def is_finished(self) -> bool:
        return self.num_drawn == len(self._points)

    def draw_until(self, at_ms: float) -> None:
        """Draw all points up to a time."""
        while not self.is_finished and self._points[self.num_drawn].at_ms <= at_ms:
            point = self._points[self.num_drawn]
            x, y, radius = point.x, point.y, point.width / 2
            self._brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=point.colour)
            if point.before is not None:
                self._brush.line((*point.before, x, y), fill=point.colour, width=point.width)
            self.num_drawn += 1

    def to_jpeg(self) -> bytes:
        file = io.BytesIO()
        self._image.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()
