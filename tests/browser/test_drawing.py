"""Drawing on the page: strokes, undo, fills, keys and reload."""

from __future__ import annotations

import sys

import pytest
from playwright.sync_api import expect

from tests.browser.canvas_page import CanvasPage

TARGET_S = 3.0


def test_live_refining(canvas: CanvasPage, capsys: pytest.CaptureFixture[str]) -> None:
    """The example is refined at once; a stroke changes the refined picture while it is drawn."""
    canvas.wait_for_picture()
    before = canvas.look("result")
    canvas.stroke((0.15, 0.15), (0.85, 0.2), (0.2, 0.3))
    elapsed_s = canvas.wait_for_change("result", before)
    with capsys.disabled():
        sys.stdout.write(f"\n  last stroke to picture: {elapsed_s:.2f} s (target {TARGET_S:.0f})\n")
    assert canvas.frames[-1]["route"] in {"generations-lcm", "lcm-instant-refine"}
    assert canvas.frames[0]["steps"] == 4


def test_settling(canvas: CanvasPage) -> None:
    """One pass with all steps follows the live frames, and then none."""
    canvas.page.wait_for_selector("#strip li", timeout=90_000)
    assert [frame["route"] for frame in canvas.frames] == ["generations-lcm", "lcm-instant-refine"]
    assert canvas.frames[-1]["steps"] == int(canvas.page.locator("#steps").input_value()) > 4
    canvas.page.wait_for_timeout(2500)
    assert len(canvas.frames) == 2


def test_undo_and_redo(canvas: CanvasPage) -> None:
    """Sixty strokes are undone by Ctrl+Z and redone by Shift+Ctrl+Z."""
    canvas.pause()
    beginning = canvas.look("paint")
    for index in range(60):
        x, y = 0.1 + 0.08 * (index % 10), 0.1 + 0.12 * (index // 10)
        canvas.page.mouse.click(*canvas.at_fraction((x, y)))
    end = canvas.look("paint")
    for _ in range(60):
        canvas.page.keyboard.press("Control+z")
    assert canvas.look("paint") == beginning
    expect(canvas.page.locator("#undo")).to_be_disabled()
    for _ in range(60):
        canvas.page.keyboard.press("Control+Shift+Z")
    assert canvas.look("paint") == end


def test_changes_during_a_stroke(canvas: CanvasPage) -> None:
    """Undo cancels the stroke under the pen, clearing ends it, and both can be undone."""
    page = canvas.page
    canvas.pause()
    canvas.stroke((0.1, 0.8), (0.9, 0.8))
    before = canvas.look("paint")
    page.mouse.move(*canvas.at_fraction((0.2, 0.3)))
    page.mouse.down()
    page.mouse.move(*canvas.at_fraction((0.7, 0.3)))
    assert canvas.look("paint") != before
    page.keyboard.press("Control+z")
    page.mouse.move(*canvas.at_fraction((0.7, 0.9)))
    page.mouse.up()
    assert canvas.look("paint") == before
    page.mouse.move(*canvas.at_fraction((0.2, 0.3)))
    page.mouse.down()
    page.mouse.move(*canvas.at_fraction((0.7, 0.3)))
    page.keyboard.press("Control+Shift+Z")
    with_stroke = canvas.look("paint")
    page.keyboard.press("Delete")
    page.mouse.move(*canvas.at_fraction((0.7, 0.9)))
    page.mouse.up()
    assert canvas.pixel("paint", 0.5, 0.8)[3] == 0
    page.keyboard.press("Control+z")
    assert canvas.look("paint") == with_stroke
    page.keyboard.press("Control+z")
    assert canvas.look("paint") == before


def test_space_on_a_checkbox(canvas: CanvasPage) -> None:
    """Space checks a focused checkbox; it does not pan there."""
    page = canvas.page
    canvas.pause()
    box = page.locator("#refine-creative")
    box.focus()
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    page.keyboard.press("Space")
    expect(box).not_to_be_checked()


def test_tools(canvas: CanvasPage) -> None:
    """Brush, straight line, eraser, fill and picker change the right pixels, by their keys."""
    page = canvas.page
    canvas.pause()
    page.keyboard.press("Delete")
    assert canvas.pixel("paint", 0.5, 0.5)[3] == 0
    page.click('.swatch[aria-label="blue"]')
    canvas.stroke((0.2, 0.5), (0.8, 0.5))
    assert canvas.pixel("paint", 0.5, 0.5) == [0x24, 0x54, 0xDB, 255]
    page.keyboard.press("e")
    canvas.stroke((0.5, 0.3), (0.5, 0.7))
    assert canvas.pixel("paint", 0.5, 0.5)[3] == 0
    assert canvas.pixel("paint", 0.3, 0.5)[3] == 255
    page.keyboard.press("f")
    page.click('.swatch[aria-label="yellow"]')
    canvas.stroke((0.1, 0.1))
    assert canvas.pixel("paint", 0.9, 0.9)[:3] == [0xFA, 0xD9, 0x26]
    page.keyboard.press("i")
    canvas.stroke((0.3, 0.5))
    assert page.locator("#colour").input_value() == "#2454db"
    page.keyboard.press("b")
    page.keyboard.down("Shift")
    canvas.stroke((0.1, 0.9), (0.5, 0.6), (0.9, 0.9))
    page.keyboard.up("Shift")
    assert canvas.pixel("paint", 0.5, 0.9)[:3] == [0x24, 0x54, 0xDB]
    assert canvas.pixel("paint", 0.5, 0.6)[:3] == [0xFA, 0xD9, 0x26]


def test_opacity(canvas: CanvasPage) -> None:
    """A stroke that crosses itself is no more opaque there."""
    canvas.pause()
    canvas.page.keyboard.press("Delete")
    canvas.page.locator("#opacity").fill("50")
    canvas.stroke((0.2, 0.5), (0.8, 0.5), (0.2, 0.5), (0.8, 0.5))
    alpha = canvas.pixel("paint", 0.5, 0.5)[3]
    assert 126 <= alpha <= 129


def test_keys_while_typing(canvas: CanvasPage) -> None:
    """Shortcut letters are letters in the prompt and shortcuts elsewhere."""
    page = canvas.page
    canvas.pause()
    before = canvas.look("paint")
    page.fill("#prompt", "")
    page.click("#prompt")
    page.keyboard.type("fine big mix?")
    page.keyboard.press("Delete")
    assert page.locator("#prompt").input_value() == "fine big mix?"
    assert canvas.look("paint") == before
    expect(page.locator('input[value="brush"]')).to_be_checked()
    expect(page.locator("#help-dialog")).to_be_hidden()
    page.locator("#surface").focus()
    page.keyboard.press("?")
    expect(page.locator("#help-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help-dialog")).to_be_hidden()


def test_keyboard_drawing(canvas: CanvasPage) -> None:
    """Tab focuses the drawing, D and the arrow keys draw, Enter refines."""
    page = canvas.page
    canvas.pause()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "surface":
            break
    assert page.evaluate("document.activeElement.id") == "surface"
    before = canvas.look("paint")
    page.keyboard.press("d")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    assert canvas.look("paint") != before
    page.keyboard.press("Control+z")
    assert canvas.look("paint") == before
    page.keyboard.press("Enter")
    page.wait_for_selector("#strip li", timeout=90_000)


def test_reload(canvas: CanvasPage) -> None:
    """Drawing, mask, prompt, settings and refined picture survive a reload."""
    page = canvas.page
    canvas.wait_for_picture()
    canvas.pause()
    canvas.stroke((0.2, 0.2), (0.6, 0.3))
    page.keyboard.press("m")
    canvas.stroke((0.4, 0.6), (0.6, 0.6))
    page.fill("#prompt", "a boat in the fog")
    page.locator("#strength").fill("0.42")
    page.evaluate("delete document.documentElement.dataset.kept")
    page.locator("#strength").fill("0.43")
    page.wait_for_selector("html[data-kept]")
    seen = [canvas.look(name) for name in ("paint", "mask", "result")]
    canvas.open()
    assert [canvas.look(name) for name in ("paint", "mask", "result")] == seen
    assert page.locator("#prompt").input_value() == "a boat in the fog"
    assert page.locator("#strength").input_value() == "0.43"


def test_pen_pressure(canvas: CanvasPage) -> None:
    """A light line is thinner than a firm one."""
    canvas.pause()
    canvas.page.keyboard.press("Delete")
    canvas.page.locator("#size").fill("40")
    session = canvas.page.context.new_cdp_session(canvas.page)

    def pen(kind: str, point: tuple[float, float], force: float) -> None:
        x, y = canvas.at_fraction(point)
        held = {"button": "left", "buttons": 1, "pointerType": "pen", "force": force}
        session.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **held})

    def width(y: float) -> int:
        return sum(canvas.pixel("paint", 0.5, y + at / 512)[3] > 127 for at in range(-30, 31))

    for y, force in ((0.25, 0.2), (0.75, 1.0)):
        pen("mousePressed", (0.2, y), force)
        for step in range(1, 13):
            pen("mouseMoved", (0.2 + 0.05 * step, y), force)
        pen("mouseReleased", (0.8, y), force)
    assert 2 < width(0.25) < 0.6 * width(0.75)
    assert 37 <= width(0.75) <= 43


@pytest.mark.parametrize("view", ["lens", "compare"])
def test_overlay_views(canvas: CanvasPage, view: str) -> None:
    """In lens and compare view both canvases share one place, and the pen draws."""
    page = canvas.page
    canvas.wait_for_picture()
    canvas.pause()
    page.check(f'input[name="view"][value="{view}"]', force=True)
    assert page.locator("#result").bounding_box() == page.locator("#paint").bounding_box()
    before = canvas.look("paint")
    canvas.stroke((0.3, 0.3), (0.8, 0.4))
    assert canvas.look("paint") != before
    if view == "compare":
        page.locator("#split-at").fill("20")
        clip = page.locator("#result").evaluate("canvas => getComputedStyle(canvas).clipPath")
        assert clip == "inset(0px 0px 0px 20%)"


def test_paste_and_drop(canvas: CanvasPage) -> None:
    """A picture from the clipboard or from a folder covers the drawing."""
    canvas.pause()
    for kind, colour in (("paste", "#0a8020"), ("drop", "#20108a")):
        canvas.page.evaluate(
            """async ([kind, colour]) => {
              const canvas = Object.assign(document.createElement("canvas"), {width: 9, height: 9});
              const context = canvas.getContext("2d");
              context.fillStyle = colour;
              context.fillRect(0, 0, 9, 9);
              const blob = await new Promise((resolve) => canvas.toBlob(resolve));
              const files = new DataTransfer();
              files.items.add(new File([blob], "picture.png", { type: "image/png" }));
              const options = { bubbles: true, cancelable: true };
              document.body.dispatchEvent(
                kind === "paste"
                  ? new ClipboardEvent("paste", { ...options, clipboardData: files })
                  : new DragEvent("drop", { ...options, dataTransfer: files }),
              );
            }""",
            [kind, colour],
        )
        canvas.wait_for_pixel("paint", [int(colour[at : at + 2], 16) for at in (1, 3, 5)])


def test_pan_and_zoom(canvas: CanvasPage) -> None:
    """Space-drag pans, Ctrl+wheel zooms, Ctrl+0 fits; none of them draws."""
    page = canvas.page
    canvas.pause()
    page.locator("#surface").focus()
    sheet = page.locator(".pane-drawing .sheet")
    pixels, fitted = canvas.look("paint"), sheet.bounding_box()
    assert fitted is not None
    page.keyboard.down(" ")
    canvas.stroke((0.5, 0.5), (0.7, 0.6))
    page.keyboard.up(" ")
    panned = sheet.bounding_box()
    assert panned is not None
    assert panned["x"] > fitted["x"]
    assert panned["width"] == pytest.approx(fitted["width"])
    page.mouse.move(*canvas.at_fraction((0.5, 0.5)))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function(
        "() => +document.getElementById('stage').style.getPropertyValue('--scale') > 1"
    )
    page.keyboard.press("Control+0")
    assert sheet.bounding_box() == fitted
    assert canvas.look("paint") == pixels
    canvas.stroke((0.4, 0.4), (0.6, 0.4))  # at the pointer, also after zooming
    assert canvas.pixel("paint", 0.5, 0.4)[:3] == [0xDB, 0x21, 0x24]


def test_size_and_colour_keys(canvas: CanvasPage) -> None:
    """Brackets change the size, X swaps the colours, and a used colour is remembered."""
    page = canvas.page
    canvas.pause()
    page.locator("#surface").focus()
    for _ in range(3):
        page.keyboard.press("]")
    assert int(page.locator("#size").input_value()) > 24
    page.keyboard.press("[")
    before = page.locator("#colour").input_value(), page.locator("#other").input_value()
    page.keyboard.press("x")
    after = page.locator("#colour").input_value(), page.locator("#other").input_value()
    assert after == before[::-1]
    page.locator("#colour").fill("#123456")
    canvas.stroke((0.2, 0.2), (0.3, 0.3))
    expect(page.locator('#recent [data-colour="#123456"]')).to_have_count(1)


def test_examples(canvas: CanvasPage) -> None:
    """An example sets drawing, prompt, style and background; undo restores the drawing."""
    page = canvas.page
    canvas.pause()
    before = canvas.look("paint")
    page.click("#examples")
    expect(page.locator("#examples-sheet button")).to_have_count(8)
    page.click("#examples-sheet button:has-text('Moon')")
    expect(page.locator("#examples-sheet")).to_be_hidden()
    assert page.locator("#prompt").input_value() == "a yellow moon at night"
    expect(page.locator('input[name="style"][value="FANTASY_ART"]')).to_be_checked()
    assert page.locator("#background").input_value() == "#12163c"
    assert canvas.look("paint") != before
    page.locator("#surface").focus()
    page.keyboard.press("Control+z")
    assert canvas.look("paint") == before
