"""A visit to the page: keys, a service that restarts, phones, and those who do not see it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.painter import Painter
from tests.browser.service import Service
from tests.fakes import READY, FakeEngineClient
from tests.servers import KEY, running_server

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_a_key_is_asked_for_where_one_is_needed(browser: Browser) -> None:
    """A wrong key is refused in words; the right one opens the page, and stands in no address."""
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
        expect(page.locator("#styles img")).to_have_count(14)  # which need the key, too
        page.reload()  # kept for the tab
        page.wait_for_selector('.pill[data-state="connected"]')
        assert page.evaluate("() => !Object.keys(localStorage).some(name => name.endsWith('key'))")
        assert not any(KEY in url for url in urls)
        visit.close()


def test_it_comes_back_with_the_service(browser: Browser, service: Service) -> None:
    """When the service has been away, the page says so, connects again and goes on painting."""
    with Painter.at(browser, service.address) as painter:
        painter.wait_for_picture()
        service.stop()
        pill = painter.page.locator("#pill")
        expect(pill).to_have_attribute("data-state", "reconnecting", timeout=20_000)
        before = painter.look("result")
        painter.stroke((0.2, 0.2), (0.8, 0.3))  # kept until somebody is there to see it
        service.start()
        expect(pill).to_have_attribute("data-state", "connected", timeout=30_000)
        painter.wait_for_change("result", before)
        painter.errors.clear()  # the browser tells of each connection that failed


def test_a_finger_draws_on_a_phone(browser: Browser, service: Service) -> None:
    """Everything fits the width of a phone, and a finger draws."""
    with Painter.at(browser, service.address, **PHONE) as painter:
        page = painter.page
        painter.pause()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for selector in ("#surface", "#refine", "#undo", "#panel-toggle", "#result"):
            box = page.locator(selector).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
            assert box["y"] + box["height"] <= 844
        before = painter.look("paint")
        swipe(page, painter.at_fraction((0.2, 0.2)), painter.at_fraction((0.8, 0.6)))
        assert painter.look("paint") != before
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


def test_a_style_that_does_not_fit_cannot_be_chosen(browser: Browser) -> None:
    """It is shown, and said to whoever does not see it; the others are there as ever."""
    engine = FakeEngineClient()
    engine.health = replace(engine.health, ready=replace(READY, misfits={"pocket": ["VIBRANT"]}))
    with running_server(engine) as address, Painter.at(browser, address) as painter:
        page = painter.page
        expect(page.locator("#styles label")).to_have_count(14)
        misfit = page.get_by_role("radio", name="Vibrant, does not fit the checkpoint")
        expect(misfit).to_be_disabled()
        expect(page.locator("#styles input:enabled")).to_have_count(13)


def swipe(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a finger over the page, as the browser's own touch events."""
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
    # Evaluated by the debugger, which the page's own policy does not bind.
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
def test_axe_finds_no_serious_fault(
    browser: Browser, service: Service, axe: str, scheme: str
) -> None:
    """On the page, with each sheet and dialog open, and while masking."""
    with Painter.at(browser, service.address, color_scheme=scheme) as painter:
        page = painter.page
        painter.wait_for_picture()
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


def test_axe_finds_no_serious_fault_on_a_phone(
    browser: Browser, service: Service, axe: str
) -> None:
    """The same on a phone, with the settings open."""
    with Painter.at(browser, service.address, **PHONE) as painter:
        painter.pause()
        painter.page.click("#panel-toggle")
        expect(painter.page.locator("#strength")).to_be_in_viewport()
        assert not faults(painter.page, axe)
