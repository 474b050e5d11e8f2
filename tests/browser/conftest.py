"""One browser and one service for all tests of the page; a fresh page for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.canvas_page import CanvasPage
from tests.browser.service import Service
from tests.support import npm

_HERE = Path(__file__).parent
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every browser test as slow, and run it alone: it waits for real pictures."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.alone)


# Package scope: over the whole session, Playwright's event loop would disturb other tests.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed; `make browser` installs Debian's")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def service(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:  # noqa: ARG001 - no service without a browser
    service = Service(tmp_path_factory.mktemp("service") / "log")
    yield service
    service.stop()


@pytest.fixture(scope="package")
def axe() -> str:
    """The source of axe-core, which runs inside the page."""
    return (npm.install(_HERE) / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.fixture
def canvas(browser: Browser, service: Service) -> Iterator[CanvasPage]:
    """The page on a desktop; it must load nothing foreign and log no error."""
    with CanvasPage.at(browser, service.address) as canvas:
        yield canvas
