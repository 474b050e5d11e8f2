"""Pictures on the page: inpainting, upscale, styles, seeds, files, and their order."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, FilePayload, WebSocketRoute, expect

from service.front.images.codec import read_metadata
from tests.browser.canvas_page import PICTURE_MS, CanvasPage
from tests.browser.service import Service


def shown(canvas: CanvasPage, layer: str) -> np.ndarray:
    """Return the pixels of a canvas, [H, W, 4]."""
    url: str = canvas.page.evaluate("id => document.getElementById(id).toDataURL()", layer)
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


def test_inpainting(canvas: CanvasPage) -> None:
    """Inpaint repaints the masked area and leaves the rest as it was drawn."""
    page = canvas.page
    canvas.pause()
    page.click("#inpaint")
    expect(page.locator(".notice")).to_contain_text("There is no mask")
    page.keyboard.press("m")
    page.locator("#size").fill("90")
    canvas.stroke((0.3, 0.6), (0.7, 0.6))
    canvas.ask("#inpaint")
    mask = shown(canvas, "mask")[..., 3] > 127
    drawn = page.evaluate("getComputedStyle(document.getElementById('paint')).backgroundColor")
    assert drawn == "rgb(164, 207, 236)"
    paint = shown(canvas, "paint").astype(int)
    ground = np.array([164, 207, 236])
    flat = np.where(paint[..., 3:] > 0, paint[..., :3], ground)
    change = np.abs(shown(canvas, "result")[..., :3].astype(int) - flat).mean(axis=2)
    far = ~np.array(Image.fromarray(mask).convert("L").resize((32, 32)).resize((512, 512))).astype(
        bool
    )
    assert mask.any()
    assert change[far].mean() < 3, "the unmasked area changed by more than a JPEG's loss"
    assert change[mask].mean() > 8, "the masked area did not change"


def test_mask_invert_and_clear(canvas: CanvasPage) -> None:
    """A mask inverts, undoes and clears."""
    canvas.pause()
    canvas.page.keyboard.press("m")
    canvas.stroke((0.3, 0.3), (0.5, 0.5))
    before = canvas.look("mask")
    canvas.page.click("#mask-invert")
    assert canvas.pixel("mask", 0.4, 0.4)[3] == 0
    assert canvas.pixel("mask", 0.9, 0.1)[3] == 255
    canvas.page.keyboard.press("Control+z")
    assert canvas.look("mask") == before
    canvas.page.click("#mask-clear")
    assert not shown(canvas, "mask").any()


def test_upscale(canvas: CanvasPage) -> None:
    """Upscale shows 1024 x 1024; To canvas draws it, and undo removes it."""
    canvas.pause()
    canvas.page.locator("#steps").fill("4")
    before = canvas.look("paint")
    canvas.ask("#upscale")
    canvas.page.wait_for_function(
        "() => document.getElementById('result').width === 1024", timeout=PICTURE_MS
    )
    canvas.page.click("#to-canvas")
    assert canvas.look("paint") != before
    canvas.page.keyboard.press("Control+z")
    assert canvas.look("paint") == before


LOADED = "images => images.every(image => image.complete && image.naturalWidth === 128)"
PIXELS = """images => images.map(image => {
  const canvas = new OffscreenCanvas(128, 128);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, 128, 128).data.join();
})"""


def test_styles(canvas: CanvasPage) -> None:
    """The chips are the service's styles; choosing one changes the live picture."""
    page = canvas.page
    canvas.wait_for_picture()
    expect(page.locator("#styles label")).to_have_count(14)
    before = canvas.look("result")
    page.check('input[name="style"][value="SKETCH_BW"]', force=True)
    canvas.wait_for_change("result", before)
    assert canvas.frames[-1]["style"] == "SKETCH_BW"


def test_style_thumbnails(canvas: CanvasPage) -> None:
    """All fourteen styles have different thumbnails and accessible names."""
    page = canvas.page
    canvas.pause()
    pictures = page.locator("#styles img")
    expect(pictures).to_have_count(14)
    canvas.wait_for(lambda: pictures.evaluate_all(LOADED))
    looks = pictures.evaluate_all(PIXELS)
    assert len(set(looks)) == 14
    expect(page.get_by_role("radio", name="Anime", exact=True)).to_have_count(1)


def test_styles_by_keyboard(canvas: CanvasPage) -> None:
    """Tab focuses the chosen style, arrows choose its neighbours, and an outline shows it."""
    page = canvas.page
    canvas.pause()
    expect(page.locator("#styles label")).to_have_count(14)
    page.check('input[name="style"][value="NONE"]', force=True)
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    chosen = page.locator('input[name="style"]:checked')
    expect(chosen).to_be_focused()
    assert chosen.input_value() == "ANIME"
    label = page.locator("#styles label:has(:checked)")
    assert label.evaluate("label => getComputedStyle(label).outlineStyle") == "solid"


def test_seed_lock(canvas: CanvasPage) -> None:
    """A locked seed gives the same picture again, an unlocked one another."""
    page = canvas.page
    canvas.pause()
    page.locator("#steps").fill("4")
    seeds, pictures = [], []
    for is_locked in (True, True, False):
        if not is_locked:
            page.click("#seed-lock")
        canvas.ask("#refine")
        seeds.append(page.locator("#seed").input_value())
        pictures.append(canvas.look("result"))
    assert seeds[0] == seeds[1] != seeds[2]
    assert pictures[0] == pictures[1] != pictures[2]
    page.locator("#surface").focus()
    page.keyboard.press("n")
    assert page.locator("#seed").input_value() != seeds[2]


def test_saved_files(canvas: CanvasPage, tmp_path: Path) -> None:
    """Ctrl+S saves the received JPEG, PNG is rendered again, and both hold the parameters."""
    page = canvas.page
    canvas.pause()
    page.locator("#steps").fill("4")
    page.fill("#prompt", "a blue boat")
    canvas.ask("#refine")
    page.locator("#surface").focus()
    with page.expect_download() as jpeg:
        page.keyboard.press("Control+s")
    page.click("#save")
    with page.expect_download(timeout=90_000) as png:
        page.click("#save-png")
    for download, suffix in ((jpeg.value, "jpg"), (png.value, "png")):
        assert download.suggested_filename == f"a-blue-boat-7.{suffix}"
        download.save_as(tmp_path / suffix)
        parameters = read_metadata((tmp_path / suffix).read_bytes())
        assert parameters is not None
        assert parameters["prompt"] == "a blue boat"
        assert parameters["seed"] == 7
    assert len(page.locator("#strip li").all()) == 1


def test_open(canvas: CanvasPage) -> None:
    """An opened picture covers the drawing; a broken file shows an error and changes nothing."""
    page = canvas.page
    canvas.pause()
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (10, 200, 30)).save(file, "PNG")
    picture: FilePayload = {
        "name": "green.png",
        "mimeType": "image/png",
        "buffer": file.getvalue(),
    }
    page.set_input_files("#file", files=[picture])
    canvas.wait_for_pixel("paint", [10, 200, 30])
    before = canvas.look("paint")
    broken: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.set_input_files("#file", files=[broken])
    expect(page.locator(".notice.is-error")).to_contain_text("cannot be read as a picture")
    assert canvas.look("paint") == before


def test_size(canvas: CanvasPage) -> None:
    """Another size scales the drawing; undo restores the old size and pixels."""
    page = canvas.page
    canvas.pause()
    before = canvas.look("paint")
    page.check('input[name="shape"][value="640x512"]', force=True)
    assert canvas.look("paint").startswith("640x512")
    page.locator("#surface").focus()
    page.keyboard.press("Control+z")
    assert canvas.look("paint") == before
    expect(page.locator('input[name="shape"][value="512x512"]')).to_be_checked()


def test_history_strip(canvas: CanvasPage) -> None:
    """A click shows an earlier picture; Restore brings back its drawing and settings."""
    page = canvas.page
    canvas.pause()
    page.locator("#steps").fill("4")
    page.fill("#prompt", "a red house")
    canvas.ask("#refine")
    first, drawn = canvas.look("result"), canvas.look("paint")
    page.click("#clear")
    page.fill("#prompt", "nothing")
    canvas.ask("#refine")
    assert canvas.look("result") != first
    page.locator("#strip button").nth(1).click()
    canvas.wait_for(lambda: canvas.look("result") == first)
    page.click("#restore")
    canvas.wait_for(lambda: canvas.pixel("paint", 0.5, 0.5)[3] == 255)
    assert page.locator("#prompt").input_value() == "a red house"
    assert canvas.look("paint") != drawn  # as it was sent: flat, and through a JPEG


def test_code_dialog(canvas: CanvasPage) -> None:
    """The dialog holds the page's request in three languages, without any key."""
    page = canvas.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    canvas.pause()
    page.fill("#prompt", "a boat")
    page.click("#code")
    expect(page.locator("#code-dialog")).to_be_visible()
    for language, mark in (
        ("curl", "curl -sS"),
        ("python", "LeonardoAiSDK("),
        ("typescript", "new Leonardo("),
    ):
        page.check(f'input[name="language"][value="{language}"]', force=True)
        text = page.locator("#code-text").inner_text()
        assert mark in text
        assert canvas.address in text
        assert "a boat" in text
    page.click("#code-copy")
    expect(page.locator(".notice")).to_contain_text("Copied")
    assert "new Leonardo(" in page.evaluate("() => navigator.clipboard.readText()")
    with page.expect_download() as drawing:
        page.click("#code-files")
    assert drawing.value.suggested_filename == "drawing.jpg"


def test_late_picture(browser: Browser, service: Service) -> None:
    """A picture that arrives after its successor is not shown."""
    relay = Relay()
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.route_web_socket("**/v1/realtime", relay.carry)
    canvas = CanvasPage(page, service.address)
    canvas.open()
    canvas.page.locator("#steps").fill("4")  # nothing to settle: live frames alone
    canvas.wait_for_picture()
    first = canvas.look("result")
    relay.is_late = True
    canvas.stroke((0.1, 0.1), (0.9, 0.1))
    canvas.wait_for(lambda: len(relay.held) == 2)
    canvas.stroke((0.1, 0.9), (0.9, 0.9))
    canvas.wait_for_change("result", first)
    canvas.wait_for(lambda: relay.is_idle)
    newest = canvas.look("result")
    relay.deliver()
    page.wait_for_timeout(500)
    assert relay.held[1] != relay.newest
    assert canvas.look("result") == newest
    context.close()


class Relay:
    """Relays the messages of a socket, and holds one result back until `deliver`."""

    IDLE_S = 3.0
    """The page sends the last frame of a stroke within this time, even on a slow machine."""

    def __init__(self) -> None:
        self.is_late = False
        self.held: list[str | bytes] = []  # a result and its picture
        self.newest: bytes | None = None  # of the pictures delivered in time
        self._unanswered: set[int] = set()
        self._carried_at = 0.0

    def carry(self, page: WebSocketRoute) -> None:
        self._page = page
        server = page.connect_to_server()

        def send(message: str | bytes) -> None:
            self._note(message)
            server.send(message)

        def forward(message: str | bytes) -> None:
            self._note(message)
            if self._must_wait(message):
                self.held.append(message)
                return
            page.send(message)
            if isinstance(message, bytes):
                self.newest = message

        page.on_message(send)
        server.on_message(forward)

    @property
    def is_idle(self) -> bool:
        """Whether every frame has its answer and no message was sent for a while."""
        return not self._unanswered and time.monotonic() - self._carried_at > self.IDLE_S

    def deliver(self) -> None:
        """Send the result that was held back."""
        for late in self.held:
            self._page.send(late)

    def _note(self, message: str | bytes) -> None:
        self._carried_at = time.monotonic()
        if isinstance(message, bytes):
            return
        content = json.loads(message)
        if content["type"] == "frame":
            self._unanswered.add(content["id"])
        else:
            self._unanswered.discard(content.get("id"))

    def _must_wait(self, message: str | bytes) -> bool:
        if isinstance(message, bytes):
            return len(self.held) == 1  # the picture of the result that is held
        return self.is_late and not self.held and json.loads(message)["type"] == "result"
