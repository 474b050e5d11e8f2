"""Screenshots of the canvas page: a real browser draws on it, with the service behind it."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_REFINE_MS = 120_000
_SETTLED_S = 8.0

_LIGHT: dict[str, Any] = {"viewport": {"width": 1360, "height": 800}, "color_scheme": "light"}
_DARK = _LIGHT | {"color_scheme": "dark"}
_PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "color_scheme": "light",
}
_SUN_AND_TREE = [
    ("yellow", 84, [(0.16, 0.17), (0.161, 0.17)]),
    ("brown", 16, [(0.86, 0.74), (0.86, 0.56)]),
    ("green", 74, [(0.84, 0.52), (0.88, 0.48), (0.86, 0.44)]),
]
_STARS = [
    ("white", 10, [(x - a, y - b), (x + a, y + b)])
    for x, y in ((0.12, 0.5), (0.68, 0.14), (0.9, 0.52), (0.3, 0.12))
    for a, b in ((0.02, 0.0), (0.0, 0.02))
]
_BUBBLES = [
    ("white", 14, [(x, y), (x + 0.002, y)]) for x, y in ((0.12, 0.5), (0.09, 0.42), (0.13, 0.35))
]
_SCREENSHOTS = {
    "canvas-light": (_LIGHT, "House", _SUN_AND_TREE),
    "canvas-dark": (_DARK, "Moon", _STARS),
    "canvas-phone": (_PHONE, "Fish", _BUBBLES),
}
"""By file: the browser's context, the example, and strokes of a colour and size (x, y: 0 to 1)."""


def write_screenshots(folder: Path, address: str) -> None:
    """Write each screenshot as a JPEG if Chromium is installed."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - optional

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("no Chromium: the screenshots stay as they are\n")
        return
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS) as browser,
    ):
        for name, (context, example, strokes) in _SCREENSHOTS.items():
            with browser.new_page(**context) as page:
                page.goto(address)
                page.wait_for_selector('.pill[data-state="connected"]')
                page.click("#examples")
                page.click(f"#examples-sheet button:has-text('{example}')")
                for colour, size, points in strokes:
                    page.click(f'.swatch[aria-label="{colour}"]')
                    page.locator("#size").fill(str(size))
                    _draw(page, points)
                _wait_until_settled(page)
                page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=88)


def _draw(page: Page, points: list[tuple[float, float]]) -> None:
    box = page.locator("#surface").bounding_box()
    if box is None:
        raise RuntimeError("the page has no drawing surface")
    first, *others = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points
    ]
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def _wait_until_settled(page: Page) -> None:
    """Wait until the history strip has an image of the prompt, and gets no more for a while."""
    shown = "prompt => document.querySelector('#strip button')?.title.startsWith(prompt)"
    page.wait_for_function(shown, arg=page.locator("#prompt").input_value(), timeout=_REFINE_MS)
    count, same_since = page.locator("#strip li").count(), time.monotonic()
    while time.monotonic() - same_since < _SETTLED_S:
        page.wait_for_timeout(200)
        if (now := page.locator("#strip li").count()) != count:
            count, same_since = now, time.monotonic()
    page.mouse.move(4, 4)
