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
_DESKTOP: dict[str, Any] = {"viewport": {"width": 1360, "height": 800}}
_PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
}


def write_screenshots(folder: Path, address: str) -> None:
    """Write canvas-light.jpg, canvas-dark.jpg and canvas-phone.jpg if Chromium is installed."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - optional

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("no Chromium: the screenshots stay as they are\n")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        scenes = {
            "canvas-light": (_DESKTOP, "light", "House", _draw_sun_and_tree),
            "canvas-dark": (_DESKTOP, "dark", "Moon", _draw_stars),
            "canvas-phone": (_PHONE, "light", "Fish", _draw_bubbles),
        }
        for name, (shape, scheme, doodle, draw) in scenes.items():
            page = browser.new_context(**shape | {"color_scheme": scheme}).new_page()
            page.goto(address)
            page.wait_for_selector('.pill[data-state="connected"]')
            _choose(page, doodle)
            draw(page)
            _wait_until_settled(page)
            page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=88)
            page.context.close()
        browser.close()


def _choose(page: Page, doodle: str) -> None:
    page.click("#examples")
    page.click(f"#examples-sheet button:has-text('{doodle}')")


def _draw_sun_and_tree(page: Page) -> None:
    _take(page, "yellow", 84)
    _stroke(page, (0.16, 0.17), (0.161, 0.17))
    _take(page, "brown", 16)
    _stroke(page, (0.86, 0.74), (0.86, 0.56))
    _take(page, "green", 74)
    _stroke(page, (0.84, 0.52), (0.88, 0.48), (0.86, 0.44))


def _draw_stars(page: Page) -> None:
    _take(page, "white", 10)
    for x, y in ((0.12, 0.5), (0.68, 0.14), (0.9, 0.52), (0.3, 0.12)):
        _stroke(page, (x - 0.02, y), (x + 0.02, y))
        _stroke(page, (x, y - 0.02), (x, y + 0.02))


def _draw_bubbles(page: Page) -> None:
    _take(page, "white", 14)
    for x, y in ((0.12, 0.5), (0.09, 0.42), (0.13, 0.35)):
        _stroke(page, (x, y), (x + 0.002, y))


def _take(page: Page, colour: str, size: int) -> None:
    page.click(f'.swatch[aria-label="{colour}"]')
    page.locator("#size").fill(str(size))


def _stroke(page: Page, *points: tuple[float, float]) -> None:
    box = page.locator("#surface").bounding_box()
    if box is None:
        raise RuntimeError("the page shows no drawing")
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def _wait_until_settled(page: Page) -> None:
    """Wait until the image of the last stroke is in the history strip and no more follow."""
    drawn = "prompt => document.querySelector('#strip button')?.title.startsWith(prompt)"
    prompt = page.locator("#prompt").input_value()
    page.wait_for_function(drawn, arg=prompt, timeout=_REFINE_MS)
    count, same_since = page.locator("#strip li").count(), time.monotonic()
    while time.monotonic() - same_since < _SETTLED_S:
        page.wait_for_timeout(200)
        if (now := page.locator("#strip li").count()) != count:
            count, same_since = now, time.monotonic()
    page.mouse.move(4, 4)
