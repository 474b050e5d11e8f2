"""Drawing on the page: strokes, undo, fills, keys, and what a reload brings back."""

from __future__ import annotations

import sys

import pytest
from playwright.sync_api import expect

from tests.browser.painter import Painter

TARGET_S = 3.0


def test_the_right_side_follows_the_pen(
    painter: Painter, capsys: pytest.CaptureFixture[str]
) -> None:
    """A doodle is refined at once; a stroke changes the refined picture while it is drawn."""
    painter.wait_for_picture()
    before = painter.look("result")
    painter.stroke((0.15, 0.15), (0.85, 0.2), (0.2, 0.3))
    elapsed_s = painter.wait_for_change("result", before)
    with capsys.disabled():
        sys.stdout.write(f"\n  last stroke to picture: {elapsed_s:.2f} s (target {TARGET_S:.0f})\n")
    assert painter.frames[-1]["route"] in {"generations-lcm", "lcm-instant-refine"}
    assert painter.frames[0]["steps"] == 4


def test_it_settles_when_the_pen_rests(painter: Painter) -> None:
    """After the live frames comes one pass with all steps, and then silence."""
    painter.page.wait_for_selector("#strip li", timeout=90_000)
    assert [frame["route"] for frame in painter.frames] == ["generations-lcm", "lcm-instant-refine"]
    assert painter.frames[-1]["steps"] == int(painter.page.locator("#steps").input_value()) > 4
    painter.page.wait_for_timeout(2500)
    assert len(painter.frames) == 2


def test_fifty_strokes_can_be_undone_and_redone(painter: Painter) -> None:
    """Sixty strokes go back to the beginning by Ctrl+Z, and come back by Shift+Ctrl+Z."""
    painter.pause()
    beginning = painter.look("paint")
    for index in range(60):
        x, y = 0.1 + 0.08 * (index % 10), 0.1 + 0.12 * (index // 10)
        painter.page.mouse.click(*painter.at_fraction((x, y)))
    end = painter.look("paint")
    for _ in range(60):
        painter.page.keyboard.press("Control+z")
    assert painter.look("paint") == beginning
    expect(painter.page.locator("#undo")).to_be_disabled()
    for _ in range(60):
        painter.page.keyboard.press("Control+Shift+Z")
    assert painter.look("paint") == end


def test_what_comes_during_a_stroke_leaves_the_drawing_whole(painter: Painter) -> None:
    """Undo gives up the stroke under the pen alone; clearing ends it; both can be undone."""
    page = painter.page
    painter.pause()
    painter.stroke((0.1, 0.8), (0.9, 0.8))
    before = painter.look("paint")
    page.mouse.move(*painter.at_fraction((0.2, 0.3)))
    page.mouse.down()
    page.mouse.move(*painter.at_fraction((0.7, 0.3)))
    assert painter.look("paint") != before
    page.keyboard.press("Control+z")
    page.mouse.move(*painter.at_fraction((0.7, 0.9)))
    page.mouse.up()
    assert painter.look("paint") == before
    page.mouse.move(*painter.at_fraction((0.2, 0.3)))
    page.mouse.down()
    page.mouse.move(*painter.at_fraction((0.7, 0.3)))
    page.keyboard.press("Control+Shift+Z")
    with_stroke = painter.look("paint")
    page.keyboard.press("Delete")
    page.mouse.move(*painter.at_fraction((0.7, 0.9)))
    page.mouse.up()
    assert painter.pixel("paint", 0.5, 0.8)[3] == 0
    page.keyboard.press("Control+z")
    assert painter.look("paint") == with_stroke
    page.keyboard.press("Control+z")
    assert painter.look("paint") == before


def test_space_presses_what_has_the_focus(painter: Painter) -> None:
    """A checkbox answers to Space and Enter asks for nothing there; elsewhere Space pans."""
    page = painter.page
    painter.pause()
    box = page.locator("#refine-creative")
    box.focus()
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    page.keyboard.press("Space")
    expect(box).not_to_be_checked()


def test_each_tool_does_its_own(painter: Painter) -> None:
    """Brush, straight line, eraser, fill and picker, by their keys, on real pixels."""
    page = painter.page
    painter.pause()
    page.keyboard.press("Delete")
    assert painter.pixel("paint", 0.5, 0.5)[3] == 0
    page.click('.swatch[aria-label="blue"]')
    painter.stroke((0.2, 0.5), (0.8, 0.5))
    assert painter.pixel("paint", 0.5, 0.5) == [0x24, 0x54, 0xDB, 255]
    page.keyboard.press("e")
    painter.stroke((0.5, 0.3), (0.5, 0.7))
    assert painter.pixel("paint", 0.5, 0.5)[3] == 0
    assert painter.pixel("paint", 0.3, 0.5)[3] == 255
    page.keyboard.press("f")
    page.click('.swatch[aria-label="yellow"]')
    painter.stroke((0.1, 0.1))
    assert painter.pixel("paint", 0.9, 0.9)[:3] == [0xFA, 0xD9, 0x26]
    page.keyboard.press("i")
    painter.stroke((0.3, 0.5))
    assert page.locator("#colour").input_value() == "#2454db"
    page.keyboard.press("b")
    page.keyboard.down("Shift")
    painter.stroke((0.1, 0.9), (0.5, 0.6), (0.9, 0.9))
    page.keyboard.up("Shift")
    assert painter.pixel("paint", 0.5, 0.9)[:3] == [0x24, 0x54, 0xDB]
    assert painter.pixel("paint", 0.5, 0.6)[:3] == [0xFA, 0xD9, 0x26]


def test_half_an_opacity_is_even_within_a_stroke(painter: Painter) -> None:
    """A stroke that crosses itself is as opaque there as elsewhere."""
    painter.pause()
    painter.page.keyboard.press("Delete")
    painter.page.locator("#opacity").fill("50")
    painter.stroke((0.2, 0.5), (0.8, 0.5), (0.2, 0.5), (0.8, 0.5))
    alpha = painter.pixel("paint", 0.5, 0.5)[3]
    assert 126 <= alpha <= 129


def test_keys_rest_while_words_are_typed(painter: Painter) -> None:
    """Letters that are shortcuts are letters in the prompt; on the page they are shortcuts."""
    page = painter.page
    painter.pause()
    before = painter.look("paint")
    page.fill("#prompt", "")
    page.click("#prompt")
    page.keyboard.type("fine big mix?")
    page.keyboard.press("Delete")
    assert page.locator("#prompt").input_value() == "fine big mix?"
    assert painter.look("paint") == before
    expect(page.locator('input[value="brush"]')).to_be_checked()
    expect(page.locator("#help-dialog")).to_be_hidden()
    page.locator("#surface").focus()
    page.keyboard.press("?")
    expect(page.locator("#help-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help-dialog")).to_be_hidden()


def test_the_keyboard_alone_draws_and_refines(painter: Painter) -> None:
    """Tab leads to the drawing; D and the arrow keys draw; Enter asks for the picture."""
    page = painter.page
    painter.pause()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "surface":
            break
    assert page.evaluate("document.activeElement.id") == "surface"
    before = painter.look("paint")
    page.keyboard.press("d")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    assert painter.look("paint") != before
    page.keyboard.press("Control+z")
    assert painter.look("paint") == before
    page.keyboard.press("Enter")
    page.wait_for_selector("#strip li", timeout=90_000)


def test_a_reload_brings_everything_back(painter: Painter) -> None:
    """Drawing, mask, prompt, settings and the refined picture are there again."""
    page = painter.page
    painter.wait_for_picture()
    painter.pause()
    painter.stroke((0.2, 0.2), (0.6, 0.3))
    page.keyboard.press("m")
    painter.stroke((0.4, 0.6), (0.6, 0.6))
    page.fill("#prompt", "a boat in the fog")
    page.locator("#strength").fill("0.42")
    page.evaluate("delete document.documentElement.dataset.kept")
    page.locator("#strength").fill("0.43")
    page.wait_for_selector("html[data-kept]")
    seen = [painter.look(name) for name in ("paint", "mask", "result")]
    painter.open()
    assert [painter.look(name) for name in ("paint", "mask", "result")] == seen
    assert page.locator("#prompt").input_value() == "a boat in the fog"
    assert page.locator("#strength").input_value() == "0.43"


def test_a_pen_draws_as_wide_as_it_is_pressed(painter: Painter) -> None:
    """A light line is thinner than a firm one."""
    painter.pause()
    painter.page.keyboard.press("Delete")
    painter.page.locator("#size").fill("40")
    session = painter.page.context.new_cdp_session(painter.page)

    def pen(kind: str, point: tuple[float, float], force: float) -> None:
        x, y = painter.at_fraction(point)
        held = {"button": "left", "buttons": 1, "pointerType": "pen", "force": force}
        session.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **held})

    def width(y: float) -> int:
        return sum(painter.pixel("paint", 0.5, y + at / 512)[3] > 127 for at in range(-30, 31))

    for y, force in ((0.25, 0.2), (0.75, 1.0)):
        pen("mousePressed", (0.2, y), force)
        for step in range(1, 13):
            pen("mouseMoved", (0.2 + 0.05 * step, y), force)
        pen("mouseReleased", (0.8, y), force)
    assert 2 < width(0.25) < 0.6 * width(0.75)
    assert 37 <= width(0.75) <= 43


@pytest.mark.parametrize("view", ["lens", "compare"])
def test_the_drawing_takes_the_pen_under_the_result(painter: Painter, view: str) -> None:
    """In the lens and in the comparison one draws as well, and both sides are in one place."""
    page = painter.page
    painter.wait_for_picture()
    painter.pause()
    page.check(f'input[name="view"][value="{view}"]', force=True)
    assert page.locator("#result").bounding_box() == page.locator("#paint").bounding_box()
    before = painter.look("paint")
    painter.stroke((0.3, 0.3), (0.8, 0.4))
    assert painter.look("paint") != before
    if view == "compare":
        page.locator("#split-at").fill("20")
        clip = page.locator("#result").evaluate("canvas => getComputedStyle(canvas).clipPath")
        assert clip == "inset(0px 0px 0px 20%)"


def test_pasted_and_dropped_pictures_are_drawn(painter: Painter) -> None:
    """A picture from the clipboard or from a folder covers the drawing."""
    painter.pause()
    for kind, colour in (("paste", "#0a8020"), ("drop", "#20108a")):
        painter.page.evaluate(
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
        painter.wait_for_pixel("paint", [int(colour[at : at + 2], 16) for at in (1, 3, 5)])


def test_the_view_pans_and_zooms_and_fits_again(painter: Painter) -> None:
    """Space-drag pans, Ctrl and the wheel zoom, Ctrl+0 fits; nothing is drawn by any of them."""
    page = painter.page
    painter.pause()
    page.locator("#surface").focus()
    sheet = page.locator(".pane-drawing .sheet")
    pixels, fitted = painter.look("paint"), sheet.bounding_box()
    assert fitted is not None
    page.keyboard.down(" ")
    painter.stroke((0.5, 0.5), (0.7, 0.6))
    page.keyboard.up(" ")
    panned = sheet.bounding_box()
    assert panned is not None
    assert panned["x"] > fitted["x"]
    assert panned["width"] == pytest.approx(fitted["width"])
    page.mouse.move(*painter.at_fraction((0.5, 0.5)))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function(
        "() => +document.getElementById('stage').style.getPropertyValue('--scale') > 1"
    )
    page.keyboard.press("Control+0")
    assert sheet.bounding_box() == fitted
    assert painter.look("paint") == pixels
    painter.stroke((0.4, 0.4), (0.6, 0.4))  # where the pointer is, whatever was zoomed before
    assert painter.pixel("paint", 0.5, 0.4)[:3] == [0xDB, 0x21, 0x24]


def test_sizes_and_colours_follow_their_keys(painter: Painter) -> None:
    """Brackets change the size, X swaps the colours, and a colour of one's own is remembered."""
    page = painter.page
    painter.pause()
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
    painter.stroke((0.2, 0.2), (0.3, 0.3))
    expect(page.locator('#recent [data-colour="#123456"]')).to_have_count(1)


def test_an_example_brings_its_prompt_and_style(painter: Painter) -> None:
    """Each doodle draws itself, names what it is, and can be undone."""
    page = painter.page
    painter.pause()
    before = painter.look("paint")
    page.click("#examples")
    expect(page.locator("#examples-sheet button")).to_have_count(8)
    page.click("#examples-sheet button:has-text('Moon')")
    expect(page.locator("#examples-sheet")).to_be_hidden()
    assert page.locator("#prompt").input_value() == "a yellow moon at night"
    expect(page.locator('input[name="style"][value="FANTASY_ART"]')).to_be_checked()
    assert page.locator("#background").input_value() == "#12163c"
    assert painter.look("paint") != before
    page.locator("#surface").focus()
    page.keyboard.press("Control+z")
    assert painter.look("paint") == before
