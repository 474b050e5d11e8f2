"""The engines as Ray Serve has them: a deployment, the way to its replicas, and their faults."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.schema import ApplicationStatus

from service.errors import (
    DeadlineExceeded,
    EngineRestarting,
    EngineStarting,
    GenerationFailed,
    QueueFull,
    RateLimited,
    RefineError,
)
from service.ray_serve.client import RETRY_AFTER_S, Seen
from service.ray_serve.replica import Refusal

if TYPE_CHECKING:
    from service.protocol.jobs import Finished, GenerationParams, Pixels
    from service.protocol.messages import Ready

APPLICATION = "instant-refine"
ENGINE = "engine"

_REFUSALS: dict[str, type[RefineError]] = {
    kind.code: kind
    for kind in (
        DeadlineExceeded,
        EngineRestarting,
        EngineStarting,
        GenerationFailed,
        QueueFull,
        RateLimited,
    )
}
_FAULTS = (RayError, RayServeException)


class ServeEngines:
    """The replicas of a deployment; see `Engines`. Serve chooses the one with the least to do."""

    def __init__(self, application: str = APPLICATION) -> None:
        self._application = application
        self._handle = serve.get_deployment_handle(ENGINE, application)

    async def look(self) -> Seen:
        try:
            status = await asyncio.to_thread(serve.status)
        except _FAULTS as fault:
            raise ConnectionError("Serve's controller does not answer") from fault
        application = status.applications.get(self._application)
        if application is None:
            return Seen(0)
        deployment: Any = application.deployments.get(ENGINE)
        has_failed = application.status == ApplicationStatus.DEPLOY_FAILED
        return Seen(
            num_serving=deployment.replica_states.get("RUNNING", 0) if deployment else 0,
            failure=_why(application, deployment) if has_failed else "",
        )

    async def ready(self) -> Ready:
        try:
            ready: Ready = await self._handle.ready.remote()
        except _FAULTS as fault:
            raise ConnectionError("the engine ended as it was asked") from fault
        return ready

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None,
        caller: str,
    ) -> Finished:
        response = self._handle.generate.remote(params, image, timeout_s, mask, caller)
        try:
            outcome = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError:
            raise QueueFull(
                "the queue is full, try again later", retry_after_s=RETRY_AFTER_S
            ) from None
        except RayTaskError:  # a bug of ours in the replica, and no loss of it
            raise
        except _FAULTS as fault:
            raise EngineRestarting(
                "the engine ended in the middle, try again", retry_after_s=RETRY_AFTER_S
            ) from fault
        if isinstance(outcome, Refusal):
            raise outcome.to_error(_REFUSALS)
        finished: Finished = outcome
        return finished


def _why(application: Any, deployment: Any) -> str:
    told = (deployment.message if deployment else "") or application.message
    return str(told) or "the engines could not be deployed"
