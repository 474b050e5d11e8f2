"""What the routes share: settings, keys, the engine's client and the threads for pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, TypeVar

from fastapi import Security
from fastapi.security import HTTPBearer
from starlette.requests import Request

from models.catalog import find_checkpoint
from service.client import EngineClient
from service.errors import Draining
from service.front.auth import KeyRing
from service.settings import Settings

T = TypeVar("T")

_NUM_PICTURE_THREADS = 2
_DRAIN_RETRY_AFTER_S = 5


class Front:
    """The front process' own state. Used from the event loop alone."""

    def __init__(self, settings: Settings, client: EngineClient) -> None:
        self.settings = settings
        self.client = client
        self.keys = KeyRing(settings.keys())
        self.checkpoint = find_checkpoint(settings.model)
        self.is_draining = False
        self.num_active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._pool = ThreadPoolExecutor(_NUM_PICTURE_THREADS, thread_name_prefix="pictures")

    @contextmanager
    def active_request(self) -> Iterator[None]:
        """Count a request as active while it runs; a drain waits for it.

        Raises Draining when the service is about to end.
        """
        if self.is_draining:
            raise Draining(
                "the service is about to end, try another one", retry_after_s=_DRAIN_RETRY_AFTER_S
            )
        self.num_active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_active -= 1
            if self.num_active == 0:
                self._idle.set()

    async def wait_until_idle(self) -> None:
        """Wait until no request is active."""
        await self._idle.wait()

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Run what takes milliseconds, such as a codec, on one of two threads of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def front_of(request: Request) -> Front:
    """Return the front that serves a request."""
    front: Front = request.app.state.front
    return front


def require_key(
    request: Request,
    _documented: Annotated[object, Security(HTTPBearer(auto_error=False))],
) -> None:
    """Refuse a caller without a key, before anything of the body is read.

    Raises AccessDenied. The bearer scheme is named so that `/docs` offers to send a key.
    """
    front_of(request).keys.check(request)
