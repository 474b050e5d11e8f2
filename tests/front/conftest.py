"""A client of the server that a case of the wire is held against."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.api import Api


@pytest.fixture
def api(address: str) -> Iterator[Api]:
    with Api(address) as api:
        yield api
    # Whatever a test sent, the server is well after it.
    assert httpx.get(address + "/health/live").json() == {"live": True}
