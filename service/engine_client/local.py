"""The seam between the front and the engine: `generate` is all that a request needs.

`LocalEngineClient` has one engine process, which its supervisor starts anew when it ends. The
front lives on meanwhile and answers 503.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.engine_client.admission import Admission, Ticket
from service.engine_client.base import EngineHealth, OnProgress
from service.engine_client.process import EngineProcess, WorkerProcess
from service.engine_client.supervisor import State, Supervisor, WatchdogTimeouts
from service.errors import (
    DeadlineExceeded,
    EngineRestarting,
    EngineStarting,
    GenerationFailed,
    OutOfMemory,
    QueueFull,
    RefineError,
)
from service.protocol.jobs import Failed, Finished, Job, Progress
from service.protocol.messages import Abort, Add, Message

if TYPE_CHECKING:
    from service.protocol.jobs import GenerationParams, Pixels
    from service.settings import EngineSettings


@dataclass(frozen=True)
class _Pending:
    future: asyncio.Future[Finished]
    ticket: Ticket
    on_progress: OnProgress | None


class LocalEngineClient:
    """An engine process on this machine. Used from one event loop; see `EngineClient`."""

    def __init__(
        self,
        settings: EngineSettings,
        spawn: Callable[[EngineSettings], EngineProcess] = WorkerProcess,
        patience: WatchdogTimeouts | None = None,
    ) -> None:
        self._supervisor = Supervisor(
            settings,
            on_message=self._on_message,
            on_lost=self._fail_pending,
            spawn=spawn,
            patience=patience,
        )
        self._admission = Admission(
            max_waiting=settings.max_waiting,
            max_waiting_per_caller=settings.max_waiting_per_caller,
        )
        self._pending: dict[str, _Pending] = {}

    @property
    def health(self) -> EngineHealth:
        engine = self._supervisor
        return EngineHealth(
            state=engine.state,
            phase=engine.heartbeat.phase if engine.heartbeat else "none",
            ready=engine.ready,
            heartbeat=engine.heartbeat,
            num_pending=len(self._pending),
            message=engine.message,
            ends=dict(engine.ends),
            is_crash_looping=engine.state != "stopped" and engine.is_crash_looping,
            estimated_wait_s=self._admission.wait_s("", math.inf),
        )

    async def start(self) -> None:
        await self._supervisor.start()

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def wait_until(self, *states: State) -> EngineHealth:
        await self._supervisor.wait_until(*states)
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
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> Finished:
        work = params.work
        self._check(caller, timeout_s, work)
        reports_progress = on_progress is not None
        job = Job(uuid.uuid4().hex, params, image, timeout_s, reports_progress, mask, caller)
        loop = asyncio.get_running_loop()
        ticket = self._admission.enter(caller, work, loop.time())
        pending = self._pending[job.id] = _Pending(loop.create_future(), ticket, on_progress)
        self._supervisor.send(Add(job))
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._supervisor.send(Abort(job.id))
            raise
        finally:
            self._admission.leave(ticket)
            del self._pending[job.id]

    def _check(self, caller: str, timeout_s: float, work: float) -> None:
        engine = self._supervisor
        if engine.state == "restarting":
            raise EngineRestarting(
                "the engine is restarting, try again shortly", retry_after_s=engine.retry_after_s
            )
        if engine.state != "serving" or engine.ready is None:
            raise EngineStarting("the engine is still starting, try again shortly", retry_after_s=5)
        self._admission.check(
            caller=caller, timeout_s=timeout_s, work=work, max_batch=engine.ready.max_batch
        )

    def _on_message(self, message: Message) -> None:
        if not isinstance(message, Finished | Failed | Progress):
            return
        pending = self._pending.get(message.job_id)
        if pending is None or pending.future.done():
            return  # its caller has gone
        if isinstance(message, Progress):
            if pending.on_progress is not None:
                pending.on_progress(message)
        elif isinstance(message, Finished):
            now = asyncio.get_running_loop().time()
            self._admission.finished(pending.ticket, now, message.times.busy_ms / 1000)
            pending.future.set_result(message)
        else:
            pending.future.set_exception(self._to_error(message))

    def _to_error(self, failed: Failed) -> RefineError:
        if failed.code == DeadlineExceeded.code:
            return DeadlineExceeded("the picture was not ready within the deadline")
        if failed.code == QueueFull.code:
            return QueueFull("the queue is full, try again later")
        if failed.code == OutOfMemory.reason:
            return OutOfMemory("the device has no memory left for this picture, try again later")
        return GenerationFailed("this picture could not be made; others are not affected")

    def _fail_pending(self) -> None:
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(
                    EngineRestarting(
                        "the engine ended in the middle, try again",
                        retry_after_s=self._supervisor.retry_after_s,
                    )
                )
