"""One real server for each module of SDK tests, and its fake engine, fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import npm
from tests.fakes import FakeEngineClient
from tests.sdk.wire import MAX_BODY_BYTES
from tests.servers import KEY, running_server


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, FakeEngineClient]]:
    engine = FakeEngineClient()
    with running_server(engine, api_keys=KEY, max_body_bytes=MAX_BODY_BYTES) as address:
        yield address, engine


@pytest.fixture
def address(served: tuple[str, FakeEngineClient]) -> str:
    """Where the server is, without a slash."""
    return served[0]


@pytest.fixture
def engine(served: tuple[str, FakeEngineClient]) -> FakeEngineClient:
    _, engine = served
    engine.asked.clear()
    engine.refusals.clear()
    return engine


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder with the TypeScript SDK."""
    return npm.install(Path(__file__).parent)
