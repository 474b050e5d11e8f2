"""A real server on a free port, in a thread of the test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from service.engine_client.base import EngineClient
from service.front.app import create_app
from service.front.server import DrainingServer, create_server
from service.settings import Settings
from tests.support.fakes import FakeEngineClient

KEY = "a-test-key"
MAX_BODY_BYTES = 2_000_000
START_S = 120.0
"""The longest that an engine may take to start, on a machine that does other things."""


@contextmanager
def running_server(client: EngineClient | None = None, **settings: Any) -> Iterator[str]:
    """Serve with a fake engine unless another is given; yield the address, without a slash."""
    app = create_app(Settings(**settings), client or FakeEngineClient())
    with running_app(app, settings.get("port", 0)) as (url, _):
        yield url


@contextmanager
def running_app(app: FastAPI, port: int = 0) -> Iterator[tuple[str, DrainingServer]]:
    """Serve an application on a port or a free one; yield its address and its server."""
    settings = app.state.front.settings
    listener = socket.create_server(("127.0.0.1", port))
    server = create_server(app, settings)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "the server did not end"


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)
