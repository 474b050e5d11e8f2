"""One open socket: frames come in, run one at a time, and each is answered once."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.errors import (
    AccessDenied,
    DeadlineExceeded,
    Draining,
    EngineRestarting,
    EngineStarting,
    QueueFull,
    RateLimited,
    RefineError,
)
from service.front.access_control.keyring import Caller
from service.front.generation import ROUTES, GenerationResult, read, refine
from service.front.health import health_of
from service.front.http.websocket_protocol import MAX_MESSAGE_BYTES
from service.front.realtime.frame_queue import Replaced, Session
from service.front.realtime.messages import LIVE_ROUTE, Frame, FrameParser, Refusal
from service.front.realtime.pacing import FramePacer
from service.front.state import Front, name_of

WATCH_S: Final = 1.0
"""How often keys and the engine's state are looked at."""

MAX_STRIKES: Final = 3
_RETRY_S: Final = 0.1
_REFUSALS: Final = (QueueFull, RateLimited, EngineStarting, EngineRestarting)

DENIED: Final = 4401
POLICY_VIOLATION: Final = 1008
SERVICE_RESTART: Final = 1012

_log = structlog.get_logger(__name__)


class Closing(Exception):
    """The socket is to be closed with a code, after its reason was sent."""

    def __init__(self, code: int, reason: RefineError) -> None:
        super().__init__(reason.message)
        self.code = code
        self.reason = reason


class RealtimeSession:
    """The session of one socket.

    `caller` is whose key it is; `counts` are of the messages sent, for the log.
    """

    def __init__(
        self, websocket: WebSocket, front: Front, caller: Caller, counts: Counter[str]
    ) -> None:
        self._websocket = websocket
        self._front = front
        self._caller = caller
        self._session = Session()
        self._assembler = FrameParser(self._session.open)
        self._pacers: dict[str, FramePacer] = {}
        self._shared_pacers: dict[str, FramePacer] = websocket.app.state.pacers
        self._offered = asyncio.Event()
        self._sending = asyncio.Lock()
        self._last: tuple[bytes, GenerationResult] | None = None  # the question and its answer
        self._turn_began = 0.0
        self._counted_id = -1  # of the frame that counted against the rate last
        self._held = front.bodies.hold(name_of(caller))
        self._counts = counts

    async def serve(self) -> Closing | WebSocketDisconnect:
        """Serve until the end; return what ended it."""
        await self._tell("ready", **self._welcome())
        try:
            with self._held:
                await self._loop()
        except BaseExceptionGroup as group:
            return _end_of(group)
        raise AssertionError("a painter was served to no end")

    async def _loop(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for loop in (self._read(), self._work(), self._watch()):
                tasks.create_task(loop)

    def _welcome(self) -> dict[str, Any]:
        settings = self._front.settings
        limits = {
            "messageBytes": MAX_MESSAGE_BYTES,
            "strikes": MAX_STRIKES,
            "deadlineS": {name: route.deadline_s(settings) for name, route in ROUTES.items()},
        }
        return {**self._status(), **self._pacer_of(LIVE_ROUTE).to_content(), "limits": limits}

    def _pacer_of(self, route: str) -> FramePacer:
        """Return the painter's own pace, which begins as that of all painters."""
        return self._pacers.setdefault(route, FramePacer(self._shared_pacers[route].mean_ms))

    # What comes in.

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            text = message.get("text")
            if text is None:
                outcomes = self._assembler.take_file(message["bytes"])
            else:
                outcomes = self._assembler.take_text(text)
            for outcome in outcomes:
                if isinstance(outcome, Frame):
                    await self._offer(outcome)
                else:
                    await self._refuse(outcome)

    async def _offer(self, frame: Frame) -> None:
        try:
            self._held.resize(self._num_bytes(frame))
        except (QueueFull, RateLimited) as error:
            await self._tell_error(error, frame.id)
            return
        replaced = self._session.offer(frame)
        self._offered.set()
        await self._tell_replaced(replaced)

    def _num_bytes(self, waiting: Frame | None) -> int:
        """Return the bytes of all frames that are held when this one waits."""
        return sum(frame.num_bytes for frame in (waiting, self._session.running) if frame)

    async def _refuse(self, refusal: Refusal) -> None:
        if refusal.is_strike:
            self._counts["strikes"] += 1
            if self._counts["strikes"] >= MAX_STRIKES:
                raise Closing(POLICY_VIOLATION, refusal.error)
        await self._tell_error(refusal.error, refusal.frame_id)

    # What runs.

    async def _work(self) -> None:
        while True:
            await self._offered.wait()
            self._turn_began = time.monotonic()
            while (frame := self._session.waiting) is not None:
                if await self._is_taken(frame):
                    await self._run()
            self._offered.clear()

    async def _is_taken(self, frame: Frame) -> bool:
        """Return whether it makes sense to let a frame run now; if not, a moment has passed.

        While the engine takes nothing a frame waits, where a newer one can take its place.
        """
        if self._is_repeated(frame) or self._has_waited_long(frame):
            return True
        try:
            self._front.client.check_accepts(name_of(self._caller), self._deadline_s(frame))
        except _REFUSALS:
            await asyncio.sleep(_RETRY_S)
            return False
        return True

    def _has_waited_long(self, frame: Frame) -> bool:
        waited_s = time.monotonic() - self._turn_began
        return self._front.is_draining or waited_s > self._deadline_s(frame)

    def _deadline_s(self, frame: Frame) -> float:
        return ROUTES[frame.route].deadline_s(self._front.settings)

    async def _run(self) -> None:
        """Let the waiting frame run and answer it.

        It waits again where another caller took the engine's last place before it. Raises Closing
        when the service is about to end.
        """
        frame = self._session.start()
        try:
            await self._answer(frame)
        except RefineError as error:
            # Past its quota, a key has too much in the engine: that passes, and the quota does not.
            is_full = isinstance(error, QueueFull) or (
                isinstance(error, RateLimited) and frame.id == self._counted_id
            )
            if is_full and not self._has_waited_long(frame):
                replaced = self._session.defer()
                self._held.resize(self._num_bytes(self._session.waiting))
                await self._tell_replaced(replaced)
                await asyncio.sleep(_RETRY_S)
                return
            await self._tell_error(error, frame.id)
            if isinstance(error, Draining):
                raise Closing(SERVICE_RESTART, error) from None
        self._session.finish()
        self._held.resize(self._num_bytes(self._session.waiting))
        self._turn_began = time.monotonic()

    async def _answer(self, frame: Frame) -> None:
        if self._last is not None and self._is_repeated(frame):
            await self._tell_result(frame, self._last[1], {"repeated": True, "stages": {}})
            return
        started = time.perf_counter()
        active = self._front.active_request(name_of(self._caller), self._deadline_s(frame))
        with self._quota(frame), active:
            refined = await self._refine(frame)
            elapsed_ms = 1000 * (time.perf_counter() - started)
            for pacer in (self._pacer_of(frame.route), self._shared_pacers[frame.route]):
                pacer.add(elapsed_ms)
            self._last = frame.question, refined
            # Within, so that a drain waits until it is sent.
            await self._tell_result(frame, refined, {"stages": refined.stages.rounded()})

    @contextmanager
    def _quota(self, frame: Frame) -> Iterator[None]:
        """Count a frame as a request is, against the key's number and, once, its rate."""
        is_counted = frame.id == self._counted_id
        with self._front.quotas.request(self._caller, is_counted=is_counted):
            self._counted_id = frame.id
            yield

    async def _refine(self, frame: Frame) -> GenerationResult:
        try:
            async with asyncio.timeout(self._deadline_s(frame)) as deadline:
                pace, caller = ROUTES[frame.route].pace, name_of(self._caller)
                work = partial(read, frame.request, frame.file)
                decode = partial(self._front.decode, work, caller)
                return await refine(self._front, decode, deadline, pace, caller)
        except TimeoutError:
            raise DeadlineExceeded("the picture was not ready within the deadline") from None
        except RefineError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the frame gets an answer
            request_id = uuid.uuid4().hex
            _log.error("an unforeseen error", request_id=request_id, exc_info=error)
            sentence = f"something unforeseen went wrong; the log has it as {request_id}"
            raise RefineError(sentence) from None

    def _is_repeated(self, frame: Frame) -> bool:
        return self._last is not None and frame.question == self._last[0] != b""

    # Messages to the client.

    async def _watch(self) -> None:
        told = self._status()
        while True:
            await asyncio.sleep(WATCH_S)
            if not self._front.keys.still_holds(self._caller):
                raise Closing(DENIED, AccessDenied("the key is no longer valid"))
            if self._front.is_draining and self._session.is_idle:
                raise Closing(SERVICE_RESTART, Draining("the service is about to end"))
            status = self._status()
            if status != told:
                told = status
                await self._tell("status", **status)

    def _status(self) -> dict[str, Any]:
        return health_of(self._front).to_content()

    async def _tell_result(
        self, frame: Frame, refined: GenerationResult, content: dict[str, Any]
    ) -> None:
        timestamp = frame.request.request_timestamp
        job = refined.job.model_copy(update={"request_timestamp": timestamp}).to_content()
        del job["imageDataUrl"]  # the binary messages that follow
        await self._tell(
            "result",
            *refined.pictures,
            id=frame.id,
            pictures=len(refined.pictures),
            format=refined.format,
            **job,
            **self._pacer_of(frame.route).to_content(),
            **content,
        )

    async def _tell_replaced(self, replaced: Replaced | None) -> None:
        if replaced is not None:
            await self._tell("replaced", id=replaced.id, by=replaced.by)

    async def _tell_error(self, error: RefineError, frame_id: int | None) -> None:
        self._front.metrics.refused.labels(error.code).inc()
        await self._tell("error", **error_content(error), **_id(frame_id))

    async def _tell(self, kind: str, *files: bytes, **content: Any) -> None:
        """Send a message and the files that belong to it, with no other message in between."""
        self._counts[kind] += 1
        self._front.metrics.socket_messages.labels(kind).inc()
        async with self._sending:
            await self._websocket.send_text(json.dumps({"type": kind, **content}))
            for file in files:
                await self._websocket.send_bytes(file)


def _end_of(group: BaseExceptionGroup[BaseException]) -> Closing | WebSocketDisconnect:
    """Return what ended a painter's tasks. Raises the group where there is more to it.

    Frames that hold an exception whose traceback holds them are a cycle, and so would keep the
    painter and the last pictures until the garbage is looked for: it is returned, not raised.
    """
    ends, unforeseen = group.split((Closing, WebSocketDisconnect))
    end = ends.exceptions[0] if ends else None
    if unforeseen is not None or not isinstance(end, Closing | WebSocketDisconnect):
        raise group
    group.__traceback__ = None
    return end


def error_content(error: RefineError) -> dict[str, Any]:
    """Return what a message of type error holds."""
    content: dict[str, Any] = {"error": error.message, "path": error.path, "code": error.code}
    if error.retry_after_s is not None:
        content["retryAfterS"] = error.retry_after_s
    return content


def _id(frame_id: int | None) -> dict[str, int]:
    return {} if frame_id is None else {"id": frame_id}
