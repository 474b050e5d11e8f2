"""The seam between the front and the engine: `generate` is all that a request needs.

`LocalEngineClient` starts one engine process and starts a new one when it ends. The front lives
on meanwhile and answers 503.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from service.errors import (
    DeadlineExceeded,
    EngineRestarting,
    EngineStarting,
    GenerationFailed,
    QueueFull,
    RefineError,
)
from service.jobs import Failed, Finished, Job, Progress
from service.messages import Abort, Add, Fatal, Heartbeat, Message, ProtocolError, Ready
from service.process import EngineProcess, WorkerProcess

if TYPE_CHECKING:
    from service.jobs import GenerationParams, Pixels
    from service.settings import EngineSettings

State = Literal["stopped", "starting", "serving", "restarting", "failed"]
OnProgress = Callable[[Progress], None]

FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 60.0
_MAX_RETRY_AFTER_S = 60

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EngineHealth:
    """What is known of the engine: `phase` as its last heartbeat told, `message` why it failed.

    `members` are the engines behind it, where there are several.
    """

    state: State
    phase: str = "none"
    ready: Ready | None = None
    heartbeat: Heartbeat | None = None
    num_pending: int = 0
    message: str = ""
    members: tuple[EngineHealth, ...] = ()


class EngineClient(Protocol):
    """How the front reaches an engine, wherever it runs."""

    @property
    def health(self) -> EngineHealth: ...

    async def start(self) -> None:
        """Begin to start the engine; return at once."""
        ...

    async def stop(self) -> None:
        """End the engine; what still runs fails."""
        ...

    async def wait_until(self, *states: State) -> EngineHealth:
        """Wait until the engine is in one of the states; return its health."""
        ...

    def check_accepts(self) -> None:
        """Raise QueueFull, EngineStarting or EngineRestarting where `generate` would at once."""
        ...

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None = None,
        on_progress: OnProgress | None = None,
    ) -> Finished:
        """Make the pictures of one job from `image`, uint8 [H, W, 3]; see `Job` for the mask.

        Cancelling the call aborts the job. Raises QueueFull, EngineStarting, EngineRestarting,
        DeadlineExceeded or GenerationFailed.
        """
        ...


@dataclass(frozen=True)
class _Pending:
    future: asyncio.Future[Finished]
    on_progress: OnProgress | None


class LocalEngineClient:
    """An engine process on this machine. Used from one event loop; see `EngineClient`."""

    def __init__(
        self,
        settings: EngineSettings,
        spawn: Callable[[EngineSettings], EngineProcess] = WorkerProcess,
        first_backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        self._settings = settings
        self._spawn = spawn
        self._first_backoff_s = first_backoff_s
        self._backoff_s = first_backoff_s
        self._state: State = "stopped"
        self._message = ""
        self._process: EngineProcess | None = None
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._ready: Ready | None = None
        self._heartbeat: Heartbeat | None = None
        self._pending: dict[str, _Pending] = {}
        self._mean_job_s = 1.0
        self._changed = asyncio.Event()

    @property
    def health(self) -> EngineHealth:
        return EngineHealth(
            state=self._state,
            phase=self._heartbeat.phase if self._heartbeat else "none",
            ready=self._ready,
            heartbeat=self._heartbeat,
            num_pending=len(self._pending),
            message=self._message,
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_process("starting")

    async def stop(self) -> None:
        self._enter("stopped")
        self._fail_pending()
        process, self._process = self._process, None
        if process is not None:
            self._outbox.put(None)
            process.connection.close()
            await asyncio.to_thread(process.join)

    async def wait_until(self, *states: State) -> EngineHealth:
        while self._state not in states:
            self._changed.clear()
            await self._changed.wait()
        return self.health

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None = None,
        on_progress: OnProgress | None = None,
    ) -> Finished:
        self.check_accepts()
        job = Job(
            uuid.uuid4().hex,
            params,
            image,
            timeout_s,
            reports_progress=on_progress is not None,
            mask=mask,
        )
        pending = _Pending(self._loop.create_future(), on_progress)
        self._pending[job.id] = pending
        self._outbox.put(Add(job))
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._outbox.put(Abort(job.id))
            raise
        finally:
            self._pending.pop(job.id, None)

    def check_accepts(self) -> None:
        if self._state == "restarting":
            raise EngineRestarting("the engine is restarting, try again shortly", retry_after_s=5)
        if self._state != "serving" or self._ready is None:
            raise EngineStarting("the engine is still starting, try again shortly", retry_after_s=5)
        if len(self._pending) >= self._settings.max_waiting + self._ready.max_batch:
            raise QueueFull(
                "the queue is full, try again later", retry_after_s=self._estimated_wait_s()
            )

    def _estimated_wait_s(self) -> int:
        max_batch = self._ready.max_batch if self._ready else 1
        wait_s = math.ceil(self._mean_job_s * len(self._pending) / max_batch)
        return min(max(1, wait_s), _MAX_RETRY_AFTER_S)

    def _start_process(self, state: State) -> None:
        if self._state == "stopped" and state == "restarting":
            return
        self._enter(state)
        self._heartbeat = self._ready = None
        self._outbox = queue.SimpleQueue()
        try:
            process = self._process = self._spawn(self._settings)
        except OSError:  # no memory or no file descriptors left: for now
            _log.exception("the engine could not be started")
            self._start_later()
            return
        for target in (self._read, self._write):
            threading.Thread(target=target, args=(process, self._outbox), daemon=True).start()

    def _read(self, process: EngineProcess, _outbox: queue.SimpleQueue[Message | None]) -> None:
        """Hand each message to the event loop, on a thread of its own, until the engine ends."""
        try:
            while True:
                self._post(self._on_message, process, process.connection.receive())
        except (EOFError, OSError):
            self._post(self._on_end, process, process.join())
        except ProtocolError:
            process.kill()  # it lives, but nothing that it says can be read any more
            self._post(self._on_end, process, process.join())

    def _write(self, process: EngineProcess, outbox: queue.SimpleQueue[Message | None]) -> None:
        try:
            while (message := outbox.get()) is not None:
                process.connection.send(message)
        except OSError:
            return  # the engine has ended, which the reader sees too

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return  # the loop is closed: nobody is left to tell

    def _on_message(self, process: EngineProcess, message: Message) -> None:
        if process is not self._process:
            return  # the last words of an engine that was replaced
        if isinstance(message, Heartbeat):
            self._heartbeat = message
        elif isinstance(message, Ready):
            self._ready = message
            _log.info("the engine serves", **asdict(message))
            self._backoff_s = self._first_backoff_s
            self._enter("serving")
        elif isinstance(message, Fatal):
            self._message = message.message
            self._enter("failed")
        elif isinstance(message, Finished | Failed | Progress):
            self._on_outcome(message)

    def _on_outcome(self, outcome: Finished | Failed | Progress) -> None:
        pending = self._pending.get(outcome.job_id)
        if pending is None or pending.future.done():
            return  # its caller has gone
        if isinstance(outcome, Progress):
            if pending.on_progress is not None:
                pending.on_progress(outcome)
        elif isinstance(outcome, Finished):
            self._mean_job_s += 0.2 * (outcome.times.busy_ms / 1000 - self._mean_job_s)
            pending.future.set_result(outcome)
        else:
            pending.future.set_exception(self._to_error(outcome))

    def _to_error(self, failed: Failed) -> RefineError:
        if failed.code == DeadlineExceeded.code:
            return DeadlineExceeded("the picture was not ready within the deadline")
        if failed.code == QueueFull.code:
            return QueueFull(
                "the queue is full, try again later", retry_after_s=self._estimated_wait_s()
            )
        return GenerationFailed("this picture could not be made; others are not affected")

    def _on_end(self, process: EngineProcess, exit_code: int) -> None:
        if process is not self._process:
            return
        process.connection.close()
        self._outbox.put(None)
        self._fail_pending()
        if self._state in {"stopped", "failed"}:
            return
        _log.error("the engine ended", exit_code=exit_code, restart_in_s=self._backoff_s)
        self._start_later()

    def _start_later(self) -> None:
        self._enter("restarting")
        self._loop.call_later(self._backoff_s, self._start_process, "restarting")
        self._backoff_s = min(2 * self._backoff_s, LAST_BACKOFF_S)

    def _fail_pending(self) -> None:
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(
                    EngineRestarting("the engine ended in the middle, try again", retry_after_s=5)
                )

    def _enter(self, state: State) -> None:
        self._state = state
        self._changed.set()
