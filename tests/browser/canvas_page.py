"""The canvas page in a browser: real pointer events, and its pixels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebSocket

PICTURE_MS = 90_000
"""The longest wait for a picture, on a machine with other load."""

_FINGERPRINT = """(id) => {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let at = 0; at < data.length; at += 1) sum = (Math.imul(sum, 31) + data[at]) | 0;
  return `${canvas.width}x${canvas.height}:${sum}`;
}"""
_CHANGED = f"([id, before]) => ({_FINGERPRINT})(id) !== before"


class CanvasPage:
    """Drives the page. Points are fractions of the drawing's width and height."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.frames: list[dict[str, Any]] = []
        self.pending: set[int] = set()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._on_url(request.url))
        page.on("websocket", self._on_socket)

    @classmethod
    @contextmanager
    def at(cls, browser: Browser, address: str, **context: Any) -> Iterator[CanvasPage]:
        """Open the page; at the end, check that it logged no error and loaded nothing foreign."""
        context = {"viewport": {"width": 1280, "height": 800}, **context}
        visit: BrowserContext = browser.new_context(**context)
        canvas = cls(visit.new_page(), address)
        canvas.open()
        yield canvas
        assert not canvas.errors
        assert not canvas.foreign
        visit.close()

    def open(self) -> None:
        self.page.goto(self.address + "/")
        self.page.wait_for_selector("html[data-begun]")

    def stroke(self, *points: tuple[float, float], num_steps: int = 6) -> None:
        """Draw from point to point with the mouse."""
        mouse = self.page.mouse
        mouse.move(*self.at_fraction(points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at_fraction(point), steps=num_steps)
        mouse.up()

    def at_fraction(self, point: tuple[float, float]) -> tuple[float, float]:
        box = self.page.locator("#surface").bounding_box()
        assert box is not None
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

    def look(self, layer: str) -> str:
        """Return a fingerprint of the pixels of `paint`, `mask` or `result`."""
        fingerprint: str = self.page.evaluate(_FINGERPRINT, layer)
        return fingerprint

    def wait_for_change(self, layer: str, before: str) -> float:
        """Wait until a canvas changes; return the seconds that it took."""
        started = time.monotonic()
        self.page.wait_for_function(_CHANGED, arg=[layer, before], timeout=PICTURE_MS, polling=16)
        return time.monotonic() - started

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition of the test, while the page runs."""
        ends = time.monotonic() + PICTURE_MS / 1000
        while not condition():
            assert time.monotonic() < ends, "the condition did not become true"
            self.page.wait_for_timeout(50)

    def wait_for_picture(self) -> None:
        self.page.wait_for_selector(".has-result", timeout=PICTURE_MS)

    def ask(self, button: str) -> None:
        """Press a button that requests a picture, and wait for the picture."""
        before = self.page.locator("#strip li").count()
        self.page.click(button)
        self.page.wait_for_function(
            "count => document.querySelectorAll('#strip li').length > count",
            arg=before,
            timeout=PICTURE_MS,
        )

    def pause(self) -> None:
        """Pause live refining, and wait for the frames in flight.

        No late picture changes the page after that.
        """
        self.page.click("#pause")
        self.page.wait_for_timeout(100)  # until Playwright reports the last frame
        self.wait_for(lambda: not self.pending)

    def pixel(self, layer: str, x: float, y: float) -> list[int]:
        """Return the colour at a point."""
        pixel: list[int] = self.page.evaluate(
            """([id, x, y]) => {
              const canvas = document.getElementById(id);
              const at = [x * canvas.width, y * canvas.height].map(Math.floor);
              return [...canvas.getContext("2d").getImageData(...at, 1, 1).data];
            }""",
            [layer, x, y],
        )
        return pixel

    def wait_for_pixel(self, layer: str, colour: list[int]) -> None:
        """Wait until the middle of a canvas has a colour."""
        self.page.wait_for_function(
            """([id, colour]) => {
              const canvas = document.getElementById(id);
              const at = [canvas.width >> 1, canvas.height >> 1];
              const { data } = canvas.getContext("2d").getImageData(...at, 1, 1);
              return colour.every((value, index) => data[index] === value);
            }""",
            arg=[layer, colour],
            timeout=10_000,
        )

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _on_url(self, url: str) -> None:
        own = (self.address, self.address.replace("http", "ws", 1), "data:", f"blob:{self.address}")
        if not url.startswith(own):
            self.foreign.append(url)

    def _on_socket(self, socket: WebSocket) -> None:
        self._on_url(socket.url)
        socket.on("framesent", self._on_frame)
        socket.on("framereceived", self._on_answer)
        socket.on("close", lambda _: self.pending.clear())

    def _on_frame(self, payload: str | bytes) -> None:
        if isinstance(payload, str) and (message := json.loads(payload))["type"] == "frame":
            self.frames.append(message)
            self.pending.add(message["id"])

    def _on_answer(self, payload: str | bytes) -> None:
        if isinstance(payload, str):
            self.pending.discard(json.loads(payload).get("id"))
