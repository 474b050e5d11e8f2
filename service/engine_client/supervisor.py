"""The life of one engine process: start it, watch it, end it where it hangs, start the next one.

A heartbeat from a separate thread shows that it lives, its phase and how long the running step has
taken. The phase distinguishes a long load from a hang. Compiling may take hours; the supervisor
waits for the compiler's end.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from service.engine_client.process import EngineProcess, WorkerProcess
from service.protocol.connection import ProtocolError
from service.protocol.messages import Fatal, Heartbeat, Message, Ready, Sick
from service.protocol.process_contract import EXIT_SICK_DEVICE

if TYPE_CHECKING:
    from service.settings import EngineSettings

State = Literal["stopped", "starting", "serving", "restarting", "failed"]
EndReason = Literal[
    "crashed",
    "exited",
    "garbage",
    "hung-load",
    "hung-step",
    "killed",
    "sick",
    "silent",
    "unstarted",
]
"""Why an engine ended; `unstarted`: no process could be made."""

_USUAL_LOAD_S = 5.0
_MAX_RETRY_AFTER_S = 60

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class WatchdogTimeouts:
    """How long the supervisor waits for what, in seconds.

    A step may take `step_factor` times as long as 99 of 100 have, and `step_s` in any case; to take
    up what was compiled, `adopt_s`. `load_s` is for each phase before it serves but compiling.
    `num_crashes` ends within `crash_window_s` are a loop, which starting anew does not cure.
    """

    silence_s: float = 10.0
    silent_load_s: float = 120.0
    load_s: float = 1800.0
    step_s: float = 10.0
    step_factor: float = 20.0
    adopt_s: float = 120.0
    first_backoff_s: float = 1.0
    last_backoff_s: float = 60.0
    steady_s: float = 60.0
    num_crashes: int = 5
    crash_window_s: float = 300.0
    look_s: float = 0.5

    def verdict(
        self, heartbeat: Heartbeat | None, *, silent_s: float, age_s: float
    ) -> EndReason | None:
        """Say why an engine must be ended now; None while there is no reason to.

        `age_s` is how long it has been in its phase.
        """
        phase = heartbeat.phase if heartbeat else "loading"
        if silent_s > (self.silence_s if phase == "serving" else self.silent_load_s):
            return "silent"
        if heartbeat is None or phase != "serving":
            return "hung-load" if age_s > self.load_s and phase != "compiling" else None
        longest_s = max(self.step_s, self.step_factor * heartbeat.step_p99_s)
        is_stuck = heartbeat.step_running_s + silent_s > longest_s
        return "hung-step" if is_stuck or heartbeat.adopting_s + silent_s > self.adopt_s else None


class Supervisor:
    """One engine after another on this machine. Used from one event loop.

    `on_message` gets what an engine says of jobs; `on_lost` is called when one is as good as gone,
    before its process has ended.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        on_message: Callable[[Message], None],
        on_lost: Callable[[], None],
        spawn: Callable[[EngineSettings], EngineProcess] = WorkerProcess,
        patience: WatchdogTimeouts | None = None,
    ) -> None:
        self.state: State = "stopped"
        self.ready: Ready | None = None
        self.heartbeat: Heartbeat | None = None
        self.message = ""
        self.ends: Counter[EndReason] = Counter()
        self._settings = settings
        self._on_message = on_message
        self._on_lost = on_lost
        self._spawn = spawn
        self._patience = patience or WatchdogTimeouts()
        self._process: EngineProcess | None = None
        self._reason: EndReason | None = None  # why the present engine is being ended
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._backoff_s = self._patience.first_backoff_s
        self._crashes: deque[float] = deque(maxlen=self._patience.num_crashes)
        self._load_s = _USUAL_LOAD_S
        self._started_at = self._phase_at = self._heard_at = self._ready_at = 0.0
        self._changed = asyncio.Event()

    @property
    def is_crash_looping(self) -> bool:
        """Whether engines end so often that something else must be done."""
        patience, crashes = self._patience, self._crashes
        is_full = len(crashes) == patience.num_crashes
        return is_full and self._loop.time() - crashes[0] < patience.crash_window_s

    @property
    def retry_after_s(self) -> int:
        """Seconds until an engine may serve again, by how long the last one took to load."""
        wait_s = self._started_at + self._load_s - self._loop.time()
        return min(max(1, math.ceil(wait_s)), _MAX_RETRY_AFTER_S)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_process("starting")
        self._watcher = self._loop.create_task(self._watch())

    async def stop(self) -> None:
        self._enter("stopped")
        self._on_lost()
        self._watcher.cancel()
        process, self._process = self._process, None
        if process is not None:
            self._outbox.put(None)
            process.connection.close()
            await asyncio.to_thread(process.join)

    def send(self, message: Message) -> None:
        self._outbox.put(message)

    async def wait_until(self, *states: State) -> None:
        while self.state not in states:
            self._changed.clear()
            await self._changed.wait()

    async def _watch(self) -> None:
        """End an engine that hangs."""
        while True:
            await asyncio.sleep(self._patience.look_s)
            now = self._loop.time()
            reason = self._patience.verdict(
                self.heartbeat, silent_s=now - self._heard_at, age_s=now - self._phase_at
            )
            if reason and self._process and not self._reason and self.state != "failed":
                _log.error("the engine hangs", reason=reason, heartbeat=self.heartbeat)
                self._lose(self._process, reason)
                self._process.kill()

    def _start_process(self, state: State) -> None:
        if self.state == "stopped" and state == "restarting":
            return
        self._enter(state)
        self.heartbeat = self.ready = self._reason = None
        self._started_at = self._phase_at = self._heard_at = self._loop.time()
        self._outbox = queue.SimpleQueue()
        try:
            process = self._process = self._spawn(self._settings)
        except OSError:  # no memory or no file descriptors left: for now
            _log.exception("the engine could not be started")
            self._start_later("unstarted")
            return
        for target in (self._read, self._write):
            threading.Thread(target=target, args=(process, self._outbox), daemon=True).start()

    def _read(self, process: EngineProcess, _outbox: queue.SimpleQueue[Message | None]) -> None:
        """Hand each message to the event loop, on a thread of its own, until the engine ends."""
        try:
            while True:
                self._post(self._hear, process, process.connection.receive())
        except (EOFError, OSError):
            self._post(self._lose, process, None)
        except ProtocolError:  # it lives, but nothing that it says can be read any more
            self._post(self._lose, process, "garbage")
            process.kill()
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
            return  # the loop is closed: nothing listens

    def _hear(self, process: EngineProcess, message: Message) -> None:
        if process is not self._process or self._reason:
            return  # the last words of an engine that is given up
        self._heard_at = self._loop.time()
        if isinstance(message, Heartbeat):
            if self.heartbeat is None or message.phase != self.heartbeat.phase:
                self._phase_at = self._heard_at
            self.heartbeat = message
        elif isinstance(message, Ready):
            self._serve(message)
        elif isinstance(message, Fatal):
            self.message = message.message
            self._enter("failed")
        elif isinstance(message, Sick):
            self._lose(process, "sick")
        else:
            self._on_message(message)

    def _serve(self, ready: Ready) -> None:
        self.ready = ready
        self._ready_at = self._loop.time()
        self._load_s = self._ready_at - self._started_at
        _log.info("the engine serves", load_s=round(self._load_s, 1), **asdict(ready))
        self._enter("serving")

    def _lose(self, process: EngineProcess, reason: EndReason | None) -> None:
        """Give an engine up: readiness ends now, its process when it does."""
        if process is not self._process:
            return
        self._reason = self._reason or reason
        if self.state in {"starting", "serving"}:
            self._started_at = self._loop.time() + self._backoff_s  # of the next one
            self._enter("restarting")
        self._on_lost()

    def _on_end(self, process: EngineProcess, exit_code: int) -> None:
        if process is not self._process:
            return
        process.connection.close()
        self._process = None
        self._outbox.put(None)
        if self.state in {"stopped", "failed"}:
            return
        reason = self._reason or _reason_of(exit_code)
        _log.error("the engine ended", reason=reason, exit_code=exit_code)
        self._start_later(reason)

    def _start_later(self, reason: EndReason) -> None:
        now, patience = self._loop.time(), self._patience
        self.ends[reason] += 1
        self._crashes.append(now)
        if self.ready is not None and now - self._ready_at >= patience.steady_s:
            self._backoff_s = patience.first_backoff_s
        self._enter("restarting")
        self._started_at = now + self._backoff_s
        self._loop.call_later(self._backoff_s, self._start_process, "restarting")
        self._backoff_s = min(2 * self._backoff_s, patience.last_backoff_s)

    def _enter(self, state: State) -> None:
        self.state = state
        self._changed.set()


def _reason_of(exit_code: int) -> EndReason:
    if exit_code == EXIT_SICK_DEVICE:
        return "sick"
    if exit_code < 0:
        return "killed"
    return "crashed" if exit_code else "exited"
