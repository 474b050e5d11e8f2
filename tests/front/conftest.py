"""A server for the tests of the wire."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.fakes import FakeEngineClient
from tests.front.api import MAX_BODY_BYTES, Api
from tests.servers import KEY, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, FakeEngineClient]]:
    engine = FakeEngineClient()
    with running_server(engine, api_keys=f"another,{KEY}", max_body_bytes=MAX_BODY_BYTES) as url:
        yield url, engine


@pytest.fixture
def api(server: tuple[str, FakeEngineClient]) -> Iterator[Api]:
    url, engine = server
    engine.asked.clear()
    api = Api(url, engine)
    yield api
    engine.refusals.clear()
    api.http.close()
    # Whatever a test sent, the server is well after it.
    assert httpx.get(url + "/health/live").json() == {"live": True}
