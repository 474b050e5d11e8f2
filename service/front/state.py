"""What the routes share: settings, keys, the engine's client and the threads for pictures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from service.api_keys import Rate
from service.engine_client.base import EngineClient
from service.errors import Draining
from service.front.access_control.body_budget import BodyBudget
from service.front.access_control.keyring import ANYBODY, Caller, KeyRing
from service.front.access_control.quotas import Quotas
from service.front.access_control.socket_limit import SocketLimit
from service.front.access_control.tickets import TicketBox
from service.front.images.decode_pool import Decoders
from service.front.registry import Served
from service.front.telemetry.metrics import Metrics
from service.settings import Settings

T = TypeVar("T")

_NUM_CODEC_THREADS = 2
_DRAIN_RETRY_AFTER_S = 5


class Front:
    """The front process' own state. Used from the event loop alone."""

    def __init__(self, settings: Settings, client: EngineClient) -> None:
        self.settings = settings
        self.client = client
        self.keys = KeyRing(
            settings.keys(),
            settings.keys_file,
            settings.limits(),
            wrong_keys=Rate(settings.failed_auth_per_minute, 60.0),
        )
        self.quotas = Quotas()
        self.bodies = BodyBudget(settings.body_budget_bytes, settings.max_body_bytes)
        self.served = Served.of(settings)
        self.metrics = Metrics(lambda: client.health)
        self.is_draining = False
        self.tickets: TicketBox[Caller] = TicketBox()
        self.seats = SocketLimit(settings.max_sockets, settings.max_sockets_per_key)
        self.metrics.sockets_open.set_function(lambda: self.seats.num_taken)
        self._active: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._decoders = Decoders(settings.decode_isolation)
        self._encoders = ThreadPoolExecutor(_NUM_CODEC_THREADS, thread_name_prefix="encode")

    @property
    def num_active(self) -> int:
        return len(self._active)

    @contextmanager
    def active_request(self, caller: str = "", timeout_s: float = math.inf) -> Iterator[None]:
        """Count the current task as an active request; a drain waits for it.

        Raises Draining when the service is about to end, now or while the request runs, and what
        the engine would refuse a caller with, before anything of the request is read.
        """
        if self.is_draining:
            raise about_to_end()
        self.client.check_accepts(caller, timeout_s)
        task = current_task()
        self._active.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            if not self.is_draining:
                raise
            task.uncancel()
            raise about_to_end() from None
        finally:
            self._active.discard(task)
            if not self._active:
                self._idle.set()

    async def wait_until_idle(self) -> None:
        """Wait until no request is active."""
        await self._idle.wait()

    def abort_active(self) -> None:
        """End the active requests with Draining."""
        for task in self._active:
            task.cancel()

    async def decode(self, work: Callable[[], T], caller: str = "") -> T:
        """Run `work`, which reads a caller's pictures, apart from the event loop: two at once."""
        return await self._decoders.run(work, caller)

    async def encode(self, work: Callable[[], T]) -> T:
        """Run `work`, which writes pictures, on one of two threads of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, work)

    def close(self) -> None:
        self._decoders.close()
        self._encoders.shutdown(wait=False, cancel_futures=True)


def name_of(caller: Caller) -> str:
    """Return the name by which an engine knows a caller; empty where no key is needed."""
    return "" if caller is ANYBODY else caller.id


def current_task() -> asyncio.Task[Any]:
    """Return the task that this runs in. Raises RuntimeError outside of one."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("no task runs here")
    return task


def about_to_end() -> Draining:
    """Return the error for callers while the service drains."""
    return Draining(
        "the service is about to end, try another one", retry_after_s=_DRAIN_RETRY_AFTER_S
    )
