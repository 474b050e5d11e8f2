"""A replica: the process on a node of the cluster that looks after one engine and its device.

It starts the engine as the front of a single machine does, in a process of its own, so that Ray's
event loop and pickling never wait for the loop that launches kernels. What goes wrong with the
engine ends the replica: Ray leaves it out at once and starts another one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.engine_client.local import LocalEngineClient
from service.errors import RefineError
from service.logs import configure_logging
from service.settings import EngineSettings

if TYPE_CHECKING:
    from service.protocol.jobs import Finished, GenerationParams, Pixels
    from service.protocol.messages import Ready

EXIT_ENGINE_ENDED = 70


@dataclass(frozen=True)
class Refusal:
    """An error of `service.errors` as data: Ray would wrap an exception in one of its own."""

    code: str
    message: str
    retry_after_s: int | None

    def to_error(self, kinds: Mapping[str, type[RefineError]]) -> RefineError:
        """Return the error again, of the kind that has its code."""
        return kinds[self.code](self.message, retry_after_s=self.retry_after_s)


class EngineReplica:
    """One engine. Ray calls `__init__`, and takes the replica in when it returns."""

    async def __init__(self, settings: str) -> None:  # type: ignore[misc]  # Ray awaits it
        """Start an engine; `settings` are EngineSettings as JSON.

        Raises RuntimeError, which Ray shows, when it cannot start.
        """
        engine = EngineSettings.model_validate_json(settings)
        configure_logging(engine.log_format)
        self._client = LocalEngineClient(engine)
        await self._client.start()
        health = await self._client.wait_until("serving", "failed", "restarting")
        if health.state != "serving" or health.ready is None:
            raise RuntimeError(health.message or "the engine ended while it started")
        self._ready = health.ready
        self._watch = asyncio.create_task(self._end_with_the_engine())

    async def ready(self) -> Ready:
        """Return the `Ready` message of the engine."""
        return self._ready

    async def check_health(self) -> None:
        """Report to Ray whether the engine serves; its heartbeat is watched by the client."""
        if self._client.health.state != "serving":
            raise RuntimeError("the engine does not serve")

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        timeout_s: float,
        mask: Pixels | None,
        caller: str,
    ) -> Finished | Refusal:
        """Make the pictures of one job; see `EngineClient.generate`."""
        try:
            return await self._client.generate(
                params, image, timeout_s=timeout_s, mask=mask, caller=caller
            )
        except RefineError as error:
            return Refusal(error.code, error.message, error.retry_after_s)

    async def _end_with_the_engine(self) -> None:
        await self._client.wait_until("restarting", "failed")
        os._exit(EXIT_ENGINE_ENDED)  # callers get an error: the replica has died
