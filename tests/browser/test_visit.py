"""Keys, a service that restarts, phones and accessibility."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.canvas_page import CanvasPage
from tests.browser.service import Service
from tests.support.fakes import READY, FakeEngineClient
from tests.support.servers import KEY, running_server

SLIDERS = {
    "strength": "strength",
    "steps": "steps",
    "guidance": "guidance",
    "refine-strength": "refineStrength",
}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_key_dialog(browser: Browser) -> None:
    """A wrong key shows an error; the right one opens the page and is in no URL."""
    with running_server(FakeEngineClient(), api_keys=KEY) as address:
        visit = browser.new_context()
        page = visit.new_page()
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.on("websocket", lambda socket: urls.append(socket.url))
        page.goto(address)
        dialog = page.locator("#key-dialog")
        expect(dialog).to_be_visible()
        page.fill("#key", "a-wrong-key")
        page.keyboard.press("Enter")
        expect(dialog.locator("[data-refused]")).to_be_visible(timeout=20_000)
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector(".has-result", timeout=20_000)
        expect(dialog).to_be_hidden()
        expect(page.locator("#styles img")).to_have_count(14)  # they need the key, too
        page.reload()  # kept for the tab
        page.wait_for_selector('.pill[data-state="connected"]')
        assert page.evaluate("() => !Object.keys(localStorage).some(name => name.endsWith('key'))")
        assert not any(KEY in url for url in urls)
        visit.close()


def test_service_restart(browser: Browser, service: Service) -> None:
    """The page shows that the service is away, reconnects and refines the last stroke."""
    with CanvasPage.at(browser, service.address) as canvas:
        canvas.wait_for_picture()
        service.stop()
        pill = canvas.page.locator("#pill")
        expect(pill).to_have_attribute("data-state", "reconnecting", timeout=20_000)
        before = canvas.look("result")
        canvas.stroke((0.2, 0.2), (0.8, 0.3))  # sent after the reconnection
        service.start()
        expect(pill).to_have_attribute("data-state", "connected", timeout=30_000)
        canvas.wait_for_change("result", before)
        canvas.errors.clear()  # the browser logs each failed connection


def test_phone(browser: Browser, service: Service) -> None:
    """The page fits a phone's width, and a finger draws."""
    with CanvasPage.at(browser, service.address, **PHONE) as canvas:
        page = canvas.page
        canvas.pause()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for selector in ("#surface", "#refine", "#undo", "#panel-toggle", "#result"):
            box = page.locator(selector).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
            assert box["y"] + box["height"] <= 844
        before = canvas.look("paint")
        swipe(page, canvas.at_fraction((0.2, 0.2)), canvas.at_fraction((0.8, 0.6)))
        assert canvas.look("paint") != before
        page.click("#panel-toggle")
        expect(page.locator("#strength")).to_be_in_viewport()
        styles = page.locator("#styles label")
        expect(styles).to_have_count(14)
        for index in (0, 13):
            styles.nth(index).scroll_into_view_if_needed()
            box = styles.nth(index).bounding_box()
            assert box is not None
            assert box["width"] >= 44
            assert box["height"] >= 44


def test_misfit_style(browser: Browser) -> None:
    """A style that does not fit is disabled, and its accessible name says so."""
    engine = FakeEngineClient()
    engine.health = replace(engine.health, ready=replace(READY, misfits={"pocket": ["VIBRANT"]}))
    with running_server(engine) as address, CanvasPage.at(browser, address) as canvas:
        page = canvas.page
        expect(page.locator("#styles label")).to_have_count(14)
        misfit = page.get_by_role("radio", name="Vibrant, does not fit the checkpoint")
        expect(misfit).to_be_disabled()
        expect(page.locator("#styles input:enabled")).to_have_count(13)


def test_limits_and_defaults(browser: Browser) -> None:
    """The sliders have the limits and defaults of the service, also if its schema comes late."""
    with running_server(FakeEngineClient()) as address:
        page = browser.new_page()
        failures = iter(["abort"])
        page.route(
            "**/openapi.json",
            lambda route: route.abort() if next(failures, None) else route.continue_(),
        )
        page.goto(address)
        expect(page.locator("#pill")).to_contain_text("cannot be reached")
        page.wait_for_selector("html[data-begun]")
        schema = httpx.get(f"{address}/openapi.json").json()["paths"]["/lcm-upscale"]["post"]
        fields = schema["requestBody"]["content"]["application/json"]["schema"]["properties"]
        models = httpx.get(f"{address}/v1/models").json()["models"]
        defaults = next(model["defaults"] for model in models if model["loaded"])
        upscale = defaults["/lcm-upscale"]["refineStrength"]
        values = {**defaults["/lcm-instant-refine"], "refineStrength": upscale}
        for id_, name in SLIDERS.items():
            slider = page.locator(f"#{id_}")
            expect(slider).to_be_enabled()
            limit = fields[name]["anyOf"][0]
            assert float(slider.get_attribute("min") or "") == limit["minimum"]
            assert float(slider.get_attribute("max") or "") == limit["maximum"]
            assert float(slider.input_value()) == values[name]
        live = defaults["/generations-lcm"]["steps"]
        expect(page.locator("#steps-out")).to_contain_text(f"{live} while you draw")
        page.close()


def swipe(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Move a finger over the page, by the browser's own touch events."""
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        touches = [{"x": x, "y": y} for x, y in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", start)
    for step in range(1, 9):
        part = step / 8
        touch(
            "touchMove",
            (start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])),
        )
    touch("touchEnd")


def faults(page: Page, axe: str) -> list[str]:
    """Return the serious and critical faults that axe-core finds."""
    # The debugger evaluates it: the page's content security policy does not apply.
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(
        "() => axe.run().then(({violations}) => violations)"
    )
    return [
        f"{fault['id']}: {json.dumps([node['html'][:120] for node in fault['nodes']])}"
        for fault in found
        if fault["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe(browser: Browser, service: Service, axe: str, scheme: str) -> None:
    """axe-core finds no serious fault, with each sheet and dialog open and while masking."""
    with CanvasPage.at(browser, service.address, color_scheme=scheme) as canvas:
        page = canvas.page
        canvas.wait_for_picture()
        assert not faults(page, axe)
        page.keyboard.press("m")
        page.click("#inpaint")  # a notice
        page.click("#pill")
        assert not faults(page, axe)
        page.keyboard.press("Escape")
        for opener, dialog in (("#help", "#help-dialog"), ("#code", "#code-dialog")):
            page.click(opener)
            expect(page.locator(dialog)).to_be_visible()
            assert not faults(page, axe)
            page.keyboard.press("Escape")
        page.click("#examples")
        assert not faults(page, axe)
        page.keyboard.press("Escape")
        page.evaluate("() => document.getElementById('key-dialog').showModal()")
        assert not faults(page, axe)


def test_axe_on_a_phone(browser: Browser, service: Service, axe: str) -> None:
    """axe-core finds no serious fault on a phone with the settings open."""
    with CanvasPage.at(browser, service.address, **PHONE) as canvas:
        canvas.pause()
        canvas.page.click("#panel-toggle")
        expect(canvas.page.locator("#strength")).to_be_in_viewport()
        assert not faults(canvas.page, axe)
