"""The front's end of engines on a cluster: the same seam as an engine on this machine.

Knows no Ray: what the cluster is asked stands in `Engines`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import structlog

from service.engine_client.admission import Admission
from service.engine_client.base import EngineHealth, OnProgress
from service.engine_client.supervisor import State
from service.errors import EngineRestarting, EngineStarting

if TYPE_CHECKING:
    from service.protocol.jobs import Finished, GenerationParams, Pixels
    from service.protocol.messages import Ready
    from service.settings import Settings

POLL_S = 0.5
RETRY_AFTER_S = 5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Seen:
    """The state of the cluster: the engines that serve, and why they could not be started."""

    num_serving: int
    failure: str = ""


class Engines(Protocol):
    """Engines on a cluster, as many as it runs."""

    async def look(self) -> Seen:
        """Return their state. Raises ConnectionError while the cluster does not answer."""
        ...

    async def ready(self) -> Ready:
        """Return the `Ready` message of an engine. Raises ConnectionError."""
        ...

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None,
        caller: str,
    ) -> Finished:
        """Make the pictures of one job on any of them; see `EngineClient.generate`."""
        ...


class RayEngineClient:
    """Engines of a deployment behind one client; see `EngineClient`. Of one event loop."""

    def __init__(
        self, settings: Settings, connect: Callable[[], Engines], poll_s: float = POLL_S
    ) -> None:
        """`connect` blocks until it has reached the cluster; what it raises ends the client.

        As many jobs of this front may wait, in all and for each caller, as the settings say,
        beyond what the engines run at once.
        """
        self._connect = connect
        self._poll_s = poll_s
        self._admission = Admission(
            max_waiting=settings.queue_size, max_waiting_per_caller=settings.queue_per_key
        )
        self._state: State = "stopped"
        self._message = ""
        self._ready: Ready | None = None
        self._num_serving = 0
        self._changed = asyncio.Event()

    @property
    def health(self) -> EngineHealth:
        own = EngineHealth(self._state, self._state, self._ready, message=self._message)
        return replace(
            own,
            num_pending=self._admission.num_pending,
            members=(own,) * self._num_serving,
            estimated_wait_s=self._admission.wait_s("", math.inf),
        )

    async def start(self) -> None:
        self._enter("starting")
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Leave the engines to the cluster; they may have other fronts."""
        self._watcher.cancel()
        self._num_serving = 0
        self._enter("stopped")

    async def wait_until(self, *states: State) -> EngineHealth:
        while self._state not in states:
            self._changed.clear()
            await self._changed.wait()
        return self.health

    def check_accepts(self, caller: str = "", timeout_s: float = math.inf) -> None:
        self._check(caller, timeout_s, work=0.0)

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None = None,
        on_progress: OnProgress | None = None,  # noqa: ARG002 - none is told over a cluster
        caller: str = "",
    ) -> Finished:
        self._check(caller, timeout_s, params.work)
        loop = asyncio.get_running_loop()
        ticket = self._admission.enter(caller, params.work, loop.time())
        try:
            finished = await self._engines.generate(
                params, image, timeout_s=timeout_s, mask=mask, caller=caller
            )
            self._admission.finished(ticket, loop.time(), finished.times.busy_ms / 1000)
        finally:
            self._admission.leave(ticket)
        return finished

    def _check(self, caller: str, timeout_s: float, work: float) -> None:
        if self._state == "restarting":
            raise EngineRestarting(
                "the engines are restarting, try again shortly", retry_after_s=RETRY_AFTER_S
            )
        if self._state != "serving" or self._ready is None:
            raise EngineStarting(
                "the engines are still starting, try again shortly", retry_after_s=RETRY_AFTER_S
            )
        num_slots = self._num_serving * self._ready.max_batch
        self._admission.check(caller=caller, timeout_s=timeout_s, work=work, max_batch=num_slots)

    async def _watch(self) -> None:
        """Keep the state up to date with the cluster."""
        try:
            self._engines = await asyncio.to_thread(self._connect)
        except Exception as error:  # noqa: BLE001 - whatever it is, no engine will ever serve
            self._fail(str(error))
        while self._state != "failed":
            self._note(await self._look())
            await asyncio.sleep(self._poll_s)

    async def _look(self) -> Seen:
        try:
            seen = await self._engines.look()
            if seen.num_serving and self._ready is None:
                self._ready = await self._engines.ready()
        except ConnectionError as error:
            _log.warning("the cluster does not answer", error=str(error))
            return Seen(0)
        return seen

    def _note(self, seen: Seen) -> None:
        self._num_serving = seen.num_serving
        if seen.num_serving:
            self._enter("serving")
        elif self._state == "serving":
            self._enter("restarting")
        elif seen.failure and self._state == "starting":
            self._fail(seen.failure)

    def _fail(self, message: str) -> None:
        self._message = message
        self._enter("failed")

    def _enter(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._changed.set()
