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

from service.front.images import read_metadata
from tests.browser.painter import PICTURE_MS, Painter
from tests.browser.service import Service


def shown(painter: Painter, canvas: str) -> np.ndarray:
    """Return the pixels of a canvas as they are, [H, W, 4]."""
    url: str = painter.page.evaluate("id => document.getElementById(id).toDataURL()", canvas)
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


def test_only_what_is_masked_is_repainted(painter: Painter) -> None:
    """The mask brush marks, Inpaint repaints there, and the rest stays as it was drawn."""
    page = painter.page
    painter.pause()
    page.click("#inpaint")
    expect(page.locator(".notice")).to_contain_text("Paint a mask first")
    page.keyboard.press("m")
    page.locator("#size").fill("90")
    painter.stroke((0.3, 0.6), (0.7, 0.6))
    painter.ask("#inpaint")
    mask = shown(painter, "mask")[..., 3] > 127
    drawn = page.evaluate("getComputedStyle(document.getElementById('paint')).backgroundColor")
    assert drawn == "rgb(164, 207, 236)"
    paint = shown(painter, "paint").astype(int)
    ground = np.array([164, 207, 236])
    flat = np.where(paint[..., 3:] > 0, paint[..., :3], ground)
    change = np.abs(shown(painter, "result")[..., :3].astype(int) - flat).mean(axis=2)
    far = ~np.array(Image.fromarray(mask).convert("L").resize((32, 32)).resize((512, 512))).astype(
        bool
    )
    assert mask.any()
    assert change[far].mean() < 3, "what is not masked has changed by more than a JPEG's loss"
    assert change[mask].mean() > 8, "what is masked has stayed"


def test_a_mask_can_be_inverted_and_cleared(painter: Painter) -> None:
    """Inverting twice is nothing; clearing leaves no mask."""
    painter.pause()
    painter.page.keyboard.press("m")
    painter.stroke((0.3, 0.3), (0.5, 0.5))
    before = painter.look("mask")
    painter.page.click("#mask-invert")
    assert painter.pixel("mask", 0.4, 0.4)[3] == 0
    assert painter.pixel("mask", 0.9, 0.1)[3] == 255
    painter.page.keyboard.press("Control+z")
    assert painter.look("mask") == before
    painter.page.click("#mask-clear")
    assert not shown(painter, "mask").any()


def test_an_upscale_is_twice_as_large_and_goes_to_the_canvas(painter: Painter) -> None:
    """Upscale shows 1024 x 1024, and To canvas draws it, which can be undone."""
    painter.pause()
    painter.page.locator("#steps").fill("4")
    before = painter.look("paint")
    painter.ask("#upscale")
    painter.page.wait_for_function(
        "() => document.getElementById('result').width === 1024", timeout=PICTURE_MS
    )
    painter.page.click("#to-canvas")
    assert painter.look("paint") != before
    painter.page.keyboard.press("Control+z")
    assert painter.look("paint") == before


LOADED = "images => images.every(image => image.complete && image.naturalWidth === 128)"
PIXELS = """images => images.map(image => {
  const canvas = new OffscreenCanvas(128, 128);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, 128, 128).data.join();
})"""


def test_a_style_is_asked_for_and_seen(painter: Painter) -> None:
    """The chips are the service's styles; another one gives another picture, live."""
    page = painter.page
    painter.wait_for_picture()
    expect(page.locator("#styles label")).to_have_count(14)
    before = painter.look("result")
    page.check('input[name="style"][value="SKETCH_BW"]', force=True)
    painter.wait_for_change("result", before)
    assert painter.frames[-1]["style"] == "SKETCH_BW"


def test_each_style_shows_its_thumbnail(painter: Painter) -> None:
    """All fourteen are pictures of their own, and the words beside them name them."""
    page = painter.page
    painter.pause()
    pictures = page.locator("#styles img")
    expect(pictures).to_have_count(14)
    painter.wait_for(lambda: pictures.evaluate_all(LOADED))
    looks = pictures.evaluate_all(PIXELS)
    assert len(set(looks)) == 14
    expect(page.get_by_role("radio", name="Anime", exact=True)).to_have_count(1)


def test_styles_are_chosen_by_keyboard(painter: Painter) -> None:
    """Tab leads to the chosen one, arrows to its neighbours, and the outline shows which it is."""
    page = painter.page
    painter.pause()
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


def test_a_locked_seed_stays_and_an_open_one_does_not(painter: Painter) -> None:
    """Locked, the same picture comes again; unlocked, each time another one."""
    page = painter.page
    painter.pause()
    page.locator("#steps").fill("4")
    seeds, pictures = [], []
    for is_locked in (True, True, False):
        if not is_locked:
            page.click("#seed-lock")
        painter.ask("#refine")
        seeds.append(page.locator("#seed").input_value())
        pictures.append(painter.look("result"))
    assert seeds[0] == seeds[1] != seeds[2]
    assert pictures[0] == pictures[1] != pictures[2]
    page.locator("#surface").focus()
    page.keyboard.press("n")
    assert page.locator("#seed").input_value() != seeds[2]


def test_saved_files_hold_their_parameters(painter: Painter, tmp_path: Path) -> None:
    """Ctrl+S saves the very bytes that came; PNG is made once more; both tell how."""
    page = painter.page
    painter.pause()
    page.locator("#steps").fill("4")
    page.fill("#prompt", "a blue boat")
    painter.ask("#refine")
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


def test_a_picture_can_be_opened_and_what_is_none_is_refused(painter: Painter) -> None:
    """An opened picture covers the drawing; a text file gives a sentence and changes nothing."""
    page = painter.page
    painter.pause()
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (10, 200, 30)).save(file, "PNG")
    picture: FilePayload = {
        "name": "green.png",
        "mimeType": "image/png",
        "buffer": file.getvalue(),
    }
    page.set_input_files("#file", files=[picture])
    painter.wait_for_pixel("paint", [10, 200, 30])
    before = painter.look("paint")
    broken: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.set_input_files("#file", files=[broken])
    expect(page.locator(".notice.is-error")).to_contain_text("cannot be read as a picture")
    assert painter.look("paint") == before


def test_a_size_keeps_the_drawing_and_an_undo_brings_it_back(painter: Painter) -> None:
    """Another shape scales what was drawn; undoing gives the old shape and pixels again."""
    page = painter.page
    painter.pause()
    before = painter.look("paint")
    page.check('input[name="shape"][value="640x512"]', force=True)
    assert painter.look("paint").startswith("640x512")
    page.locator("#surface").focus()
    page.keyboard.press("Control+z")
    assert painter.look("paint") == before
    expect(page.locator('input[name="shape"][value="512x512"]')).to_be_checked()


def test_a_picture_of_the_strip_can_be_seen_and_restored(painter: Painter) -> None:
    """An earlier picture is shown again, and Restore brings back what it was made of."""
    page = painter.page
    painter.pause()
    page.locator("#steps").fill("4")
    page.fill("#prompt", "a red house")
    painter.ask("#refine")
    first, drawn = painter.look("result"), painter.look("paint")
    page.click("#clear")
    page.fill("#prompt", "nothing")
    painter.ask("#refine")
    assert painter.look("result") != first
    page.locator("#strip button").nth(1).click()
    painter.wait_for(lambda: painter.look("result") == first)
    page.click("#restore")
    painter.wait_for(lambda: painter.pixel("paint", 0.5, 0.5)[3] == 255)
    assert page.locator("#prompt").input_value() == "a red house"
    assert painter.look("paint") != drawn  # as it was sent: flat, and through a JPEG


def test_the_request_can_be_copied_as_code(painter: Painter) -> None:
    """The dialog holds what the page would ask for, in three languages, without any key."""
    page = painter.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    painter.pause()
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
        assert painter.address in text
        assert "a boat" in text
    page.click("#code-copy")
    expect(page.locator(".notice")).to_contain_text("Copied")
    assert "new Leonardo(" in page.evaluate("() => navigator.clipboard.readText()")
    with page.expect_download() as drawing:
        page.click("#code-files")
    assert drawing.value.suggested_filename == "drawing.jpg"


def test_a_late_picture_is_not_shown_over_a_newer_one(browser: Browser, service: Service) -> None:
    """An answer that was held up on its way arrives after its successor, and is not shown."""
    courier = Courier()
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.route_web_socket("**/v1/realtime", courier.carry)
    painter = Painter(page, service.address)
    painter.open()
    painter.page.locator("#steps").fill("4")  # nothing to settle: live frames alone
    painter.wait_for_picture()
    first = painter.look("result")
    courier.is_late = True
    painter.stroke((0.1, 0.1), (0.9, 0.1))
    painter.wait_for(lambda: len(courier.held) == 2)
    painter.stroke((0.1, 0.9), (0.9, 0.9))
    painter.wait_for_change("result", first)
    painter.wait_for(lambda: courier.is_idle)
    newest = painter.look("result")
    courier.deliver()
    page.wait_for_timeout(500)
    assert courier.held[1] != courier.newest
    assert painter.look("result") == newest
    context.close()


class Courier:
    """Carries what page and service tell each other; one result is kept back until asked for."""

    IDLE_S = 3.0
    """The page sends the last of a stroke within this time, however slow the machine is."""

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
        """Whether all frames have their answers, and no other one has left for a while."""
        return not self._unanswered and time.monotonic() - self._carried_at > self.IDLE_S

    def deliver(self) -> None:
        """Hand over what was kept back."""
        for late in self.held:
            self._page.send(late)

    def _note(self, message: str | bytes) -> None:
        self._carried_at = time.monotonic()
        if isinstance(message, bytes):
            return
        told = json.loads(message)
        if told["type"] == "frame":
            self._unanswered.add(told["id"])
        else:
            self._unanswered.discard(told.get("id"))

    def _must_wait(self, message: str | bytes) -> bool:
        if isinstance(message, bytes):
            return len(self.held) == 1  # the picture of the result that is held
        return self.is_late and not self.held and json.loads(message)["type"] == "result"
