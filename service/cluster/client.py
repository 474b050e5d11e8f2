"""The front's end of a Ray deployment: the same seam as an engine on this machine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException

from service.client import EngineHealth, OnProgress
from service.cluster.replica import Refusal
from service.errors import (
    DeadlineExceeded,
    EngineRestarting,
    EngineStarting,
    GenerationFailed,
    QueueFull,
    RefineError,
)
from service.supervisor import State

if TYPE_CHECKING:
    from service.jobs import Finished, GenerationParams, Pixels

APPLICATION = "instant-refine"
ENGINE = "engine"
POLL_S = 0.5
_RETRY_AFTER_S = 5

_ERRORS: dict[str, type[RefineError]] = {
    kind.code: kind
    for kind in (DeadlineExceeded, EngineRestarting, EngineStarting, GenerationFailed, QueueFull)
}

_log = structlog.get_logger(__name__)


class RayEngineClient:
    """Engines of a Serve deployment, as many as Ray runs; see `EngineClient`."""

    def __init__(
        self,
        max_waiting: int,
        application: str = APPLICATION,
        deploy: Callable[[], None] | None = None,
    ) -> None:
        """`max_waiting` jobs of this front may wait beyond what the replicas run at once.

        `deploy` brings the application onto the cluster; without it the application is there.
        """
        self._max_waiting = max_waiting
        self._application = application
        self._deploy = deploy
        self._health = EngineHealth("stopped")
        self._num_replicas = 0
        self._num_pending = 0
        self._message = ""
        self._changed = asyncio.Event()

    @property
    def health(self) -> EngineHealth:
        members = (self._health,) * self._num_replicas
        return replace(self._health, num_pending=self._num_pending, members=members)

    async def start(self) -> None:
        self._enter("starting")
        self._polling = asyncio.create_task(self._deploy_and_poll())

    async def stop(self) -> None:
        """Leave the engines to the cluster; they may have other fronts."""
        self._polling.cancel()
        self._enter("stopped")

    async def wait_until(self, *states: State) -> EngineHealth:
        while self._health.state not in states:
            self._changed.clear()
            await self._changed.wait()
        return self.health

    def check_accepts(self, caller: str = "", timeout_s: float = math.inf) -> None:  # noqa: ARG002
        ready = self._health.ready
        if self._health.state == "restarting":
            raise EngineRestarting("the engines are restarting, try again shortly", retry_after_s=5)
        if self._health.state != "serving" or ready is None:
            raise EngineStarting("the engines are still starting, try again shortly")
        if self._num_pending >= self._max_waiting + self._num_replicas * ready.max_batch:
            raise _queue_full()

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None = None,
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> Finished:
        if on_progress is not None:
            raise NotImplementedError("no progress comes over Ray")
        self.check_accepts()
        response = self._handle.generate.remote(params, image, timeout_s, mask, caller)
        self._num_pending += 1
        try:
            outcome = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError:
            raise _queue_full() from None
        except (RayActorError, RayServeException):
            raise EngineRestarting(
                "the engine ended in the middle, try again", retry_after_s=_RETRY_AFTER_S
            ) from None
        finally:
            self._num_pending -= 1
        if isinstance(outcome, Refusal):
            raise _ERRORS[outcome.code](outcome.message, retry_after_s=outcome.retry_after_s)
        finished: Finished = outcome
        return finished

    async def _deploy_and_poll(self) -> None:
        """Keep the health up to date with what the cluster's controller says."""
        try:
            if self._deploy is not None:
                await asyncio.to_thread(self._deploy)
        except (RuntimeError, OSError, RayError) as error:  # no cluster, or no engine starts on it
            self._message = str(error)
            self._enter("failed")
            return
        self._handle = serve.get_deployment_handle(ENGINE, self._application)
        while True:
            try:
                await self._look()
            except (RayError, RayServeException):
                _log.warning("the cluster's controller does not answer")
                self._set_replicas(0)
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        status = await asyncio.to_thread(serve.status)
        application = status.applications.get(self._application)
        deployment: Any = application and application.deployments.get(ENGINE)
        running = deployment.replica_states.get("RUNNING", 0) if deployment else 0
        if running and self._health.ready is None:
            health: EngineHealth = await self._handle.health.remote()
            self._health = replace(self._health, ready=health.ready)
        self._set_replicas(running)

    def _set_replicas(self, running: int) -> None:
        self._num_replicas = running
        if running:
            self._enter("serving")
        elif self._health.state == "serving":
            self._enter("restarting")

    def _enter(self, state: State) -> None:
        old = self._health
        self._health = replace(old, state=state, phase=state, message=self._message)
        if state != old.state:
            self._changed.set()


def _queue_full() -> QueueFull:
    return QueueFull("the queue is full, try again later", retry_after_s=_RETRY_AFTER_S)
