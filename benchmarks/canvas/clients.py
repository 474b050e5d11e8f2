"""Painters who draw at the drawing's true speed and watch for what comes back.

A change waits 64 ms for others, then the newest picture goes out: over the socket whenever the
service's pace allows it, as what waits there is replaced, over HTTP when the last one is answered.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from benchmarks.canvas.drawing import Canvas, Drawing
from service.front.dataurl import to_data_url
from service.live import LiveClient

ROUTE = "/generations-lcm"
_COALESCE_MS = 64.0
_LONGEST_WAIT_MS = 3000.0
_TICK_S = 0.008
_LAST_PICTURE_S = 120.0
_FIELDS: dict[str, Any] = {"prompt": "a red house in a meadow", "steps": 4, "strength": 0.6}


@dataclass
class Record:
    """What a painter saw: how many points each picture held, and when it came."""

    sent: int = 0
    replaced: int = 0
    errors: int = 0
    shown_ms: list[float] = field(default_factory=list)
    shown_points: list[int] = field(default_factory=list)

    def show(self, now_ms: float, num_points: int) -> None:
        """Note a picture, unless it is older than the one that is shown."""
        if not self.shown_points or num_points > self.shown_points[-1]:
            self.shown_ms.append(now_ms)
            self.shown_points.append(num_points)

    def motion_to_image_ms(self, drawing: Drawing) -> list[float]:
        """Return for each point of the pen the time until the first picture that holds it."""
        latencies_ms = []
        for index, point in enumerate(drawing.points):
            first = bisect_left(self.shown_points, index + 1)
            if first < len(self.shown_points):
                latencies_ms.append(self.shown_ms[first] - point.at_ms)
        return latencies_ms


class Lane(Protocol):
    """A way to the service. `is_free` tells whether another picture may go out."""

    record: Record

    @property
    def interval_ms(self) -> float: ...

    @property
    def pause_ms(self) -> float: ...

    @property
    def is_free(self) -> bool: ...

    @property
    def is_idle(self) -> bool: ...

    async def __aenter__(self) -> Lane: ...

    async def __aexit__(self, *error: object) -> None: ...

    def send(self, picture: bytes, num_points: int) -> None:
        """Ask for what becomes of a picture that holds so many points."""
        ...


class SocketLane:
    """Over `/v1/realtime`, where a newer picture takes the place of the one that waits."""

    is_free = True

    def __init__(self, url: str, key: str | None, clock: Clock) -> None:
        self.record = Record()
        self._live = LiveClient(url, key=key)
        self._clock = clock
        self._num_points: dict[int, int] = {}

    @property
    def interval_ms(self) -> float:
        return float(self._live.status.get("intervalMs", 0.0))

    @property
    def pause_ms(self) -> float:
        return float(self._live.status.get("pauseMs", 0.0))

    @property
    def is_idle(self) -> bool:
        return not self._num_points

    async def __aenter__(self) -> SocketLane:
        await self._live.__aenter__()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._reader.cancel()
        await self._live.__aexit__(*error)

    def send(self, picture: bytes, num_points: int) -> None:
        self.record.sent += 1
        self._num_points[self._live.send(picture, **_FIELDS)] = num_points

    async def _read(self) -> None:
        async for answer in self._live:
            num_points = self._num_points.pop(answer.id or 0, 0)
            if answer.kind == "result":
                self.record.show(self._clock.now_ms, num_points)
            elif answer.kind == "replaced":
                self.record.replaced += 1
            else:
                self.record.errors += 1


class HttpLane:
    """Over `POST /generations-lcm`, one request at a time, as nothing there takes one back."""

    interval_ms = 0.0
    pause_ms = 0.0

    def __init__(self, url: str, key: str | None, clock: Clock) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.record = Record()
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_LAST_PICTURE_S)
        self._clock = clock
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_free(self) -> bool:
        return self._asking is None or self._asking.done()

    @property
    def is_idle(self) -> bool:
        return self.is_free

    async def __aenter__(self) -> HttpLane:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    def send(self, picture: bytes, num_points: int) -> None:
        self.record.sent += 1
        self._asking = asyncio.create_task(self._ask(picture, num_points))

    async def _ask(self, picture: bytes, num_points: int) -> None:
        body = {**_FIELDS, "imageDataUrl": to_data_url(picture, "jpeg")}
        answer = await self._http.post(ROUTE, json=body)
        if answer.status_code == httpx.codes.OK:
            self.record.show(self._clock.now_ms, num_points)
        else:
            self.record.errors += 1


class Clock:
    """Milliseconds since a painter began."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def now_ms(self) -> float:
        return 1000 * (time.perf_counter() - self._started)


LANES: dict[str, type[SocketLane] | type[HttpLane]] = {"websocket": SocketLane, "http": HttpLane}


async def paint(lane_name: str, url: str, key: str | None, drawing: Drawing) -> Record:
    """Draw the drawing once; return what was seen, up to the picture that holds all of it."""
    clock, canvas = Clock(), Canvas(drawing)
    pacer = Pacer()
    async with (
        LANES[lane_name](url, key, clock) as lane,
        asyncio.timeout(drawing.points[-1].at_ms / 1000 + _LAST_PICTURE_S),
    ):
        while not (canvas.is_finished and pacer.num_sent == canvas.num_drawn and lane.is_idle):
            canvas.draw_until(clock.now_ms)
            if lane.is_free and pacer.is_due(clock.now_ms, canvas.num_drawn, lane):
                lane.send(canvas.to_jpeg(), canvas.num_drawn)
                pacer.sent(clock.now_ms, canvas.num_drawn)
            await asyncio.sleep(_TICK_S)
        return lane.record


class Pacer:
    """When the next picture is due, by the pace that the service tells."""

    def __init__(self) -> None:
        self.num_sent = 0
        self._num_seen = 0
        self._sent_ms = float("-inf")
        self._changed_first_ms: float | None = None
        self._changed_last_ms = 0.0

    def is_due(self, now_ms: float, num_points: int, lane: Lane) -> bool:
        if num_points > self._num_seen:
            self._num_seen, self._changed_last_ms = num_points, now_ms
            self._changed_first_ms = self._changed_first_ms or now_ms
        if self._changed_first_ms is None or now_ms < self._sent_ms + lane.interval_ms:
            return False
        if not lane.pause_ms:
            return now_ms >= self._changed_first_ms + _COALESCE_MS
        has_rested = now_ms >= self._changed_last_ms + lane.pause_ms
        return has_rested or now_ms >= self._changed_first_ms + _LONGEST_WAIT_MS

    def sent(self, now_ms: float, num_points: int) -> None:
        self.num_sent, self._sent_ms, self._changed_first_ms = num_points, now_ms, None
