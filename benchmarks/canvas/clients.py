"""Clients that draw at the drawing's true speed and record the pictures that come back.

A change waits 64 ms for more changes, then the newest picture is sent: over the WebSocket whenever
the service's pace allows it, since a newer frame replaces a waiting one; over HTTP when the last
request is answered.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from benchmarks.canvas.drawing import Canvas, Drawing
from service.front.images.data_url import to_data_url
from service.realtime_client import RealtimeClient

_ROUTE = "/generations-lcm"
_COALESCE_MS = 64.0
_MAX_WAIT_MS = 3000.0
_TICK_S = 0.008
_LAST_PICTURE_S = 120.0
_FIELDS: dict[str, Any] = {"prompt": "a red house in a meadow", "steps": 4, "strength": 0.6}


@dataclass
class Record:
    """What a user saw: how many points of the drawing each picture held, and when it came."""

    sent: int = 0
    replaced: int = 0
    errors: int = 0
    shown_ms: list[float] = field(default_factory=list)
    shown_points: list[int] = field(default_factory=list)

    def show(self, now_ms: float, num_points: int) -> None:
        """Add a picture, unless a newer one is shown already."""
        if not self.shown_points or num_points > self.shown_points[-1]:
            self.shown_ms.append(now_ms)
            self.shown_points.append(num_points)

    def motion_to_image_ms(self, drawing: Drawing) -> list[float]:
        """Return for each point of the pen the time to the first picture that holds it."""
        latencies_ms = []
        for index, point in enumerate(drawing.points):
            first = bisect_left(self.shown_points, index + 1)
            if first < len(self.shown_points):
                latencies_ms.append(self.shown_ms[first] - point.at_ms)
        return latencies_ms


class Clock:
    """Milliseconds since a user began to draw."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def now_ms(self) -> float:
        return 1000 * (time.perf_counter() - self._started)


class DrawingClient:
    """A way to the service. `send` starts a request for a picture of the first `num_points`.

    `interval_ms` and `pause_ms` are the pace that the service asks for. `can_send` is whether
    another picture may be sent, `is_idle` whether all have been answered.
    """

    can_send = True
    is_idle = True

    def __init__(self, clock: Clock) -> None:
        self.record = Record()
        self.clock = clock

    @property
    def interval_ms(self) -> float:
        return 0.0

    @property
    def pause_ms(self) -> float:
        return 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None: ...

    def send(self, picture: bytes, num_points: int) -> None:
        raise NotImplementedError


class WebSocketClient(DrawingClient):
    """Over `/v1/realtime`, where a newer frame replaces the one that waits."""

    def __init__(self, url: str, key: str | None, clock: Clock) -> None:
        super().__init__(clock)
        self._live = RealtimeClient(url, key=key)
        self._num_points: dict[int, int] = {}

    @property
    def interval_ms(self) -> float:
        return float(self._live.status.get("intervalMs", 0.0))

    @property
    def pause_ms(self) -> float:
        return float(self._live.status.get("pauseMs", 0.0))

    async def __aenter__(self) -> Self:
        await self._live.__aenter__()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._reader.cancel()
        await self._live.__aexit__(*error)

    def send(self, picture: bytes, num_points: int) -> None:
        self._num_points[self._live.send(picture, **_FIELDS)] = num_points
        self.is_idle = False

    async def _read(self) -> None:
        async for answer in self._live:
            num_points = self._num_points.pop(answer.id or 0, 0)
            self.is_idle = not self._num_points
            if answer.kind == "result":
                self.record.show(self.clock.now_ms, num_points)
            elif answer.kind == "replaced":
                self.record.replaced += 1
            else:
                self.record.errors += 1


class HttpClient(DrawingClient):
    """Over `POST /generations-lcm`, one request at a time: a request cannot be replaced."""

    def __init__(self, url: str, key: str | None, clock: Clock) -> None:
        super().__init__(clock)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_LAST_PICTURE_S)

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    def send(self, picture: bytes, num_points: int) -> None:
        self.can_send = self.is_idle = False
        self._request = asyncio.create_task(self._post(picture, num_points))

    async def _post(self, picture: bytes, num_points: int) -> None:
        body = {**_FIELDS, "imageDataUrl": to_data_url(picture, "jpeg")}
        try:
            answer = await self._http.post(_ROUTE, json=body)
            if answer.status_code == httpx.codes.OK:
                self.record.show(self.clock.now_ms, num_points)
            else:
                self.record.errors += 1
        finally:
            self.can_send = self.is_idle = True


CLIENTS: dict[str, type[WebSocketClient | HttpClient]] = {
    "websocket": WebSocketClient,
    "http": HttpClient,
}


async def draw(client_name: str, url: str, key: str | None, drawing: Drawing) -> Record:
    """Draw the drawing once; return what was seen, up to the picture that holds all of it."""
    clock, canvas = Clock(), Canvas(drawing)
    pacer = Pacer()
    async with (
        CLIENTS[client_name](url, key, clock) as client,
        asyncio.timeout(drawing.points[-1].at_ms / 1000 + _LAST_PICTURE_S),
    ):
        while not (canvas.is_finished and pacer.num_sent == canvas.num_drawn and client.is_idle):
            canvas.draw_until(clock.now_ms)
            if client.can_send and pacer.is_due(clock.now_ms, canvas.num_drawn, client):
                client.record.sent += 1
                client.send(canvas.to_jpeg(), canvas.num_drawn)
                pacer.sent(clock.now_ms, canvas.num_drawn)
            await asyncio.sleep(_TICK_S)
        return client.record


class Pacer:
    """When the next picture is due, at the pace that the service asks for."""

    def __init__(self) -> None:
        self.num_sent = 0
        self._num_seen = 0
        self._sent_ms = float("-inf")
        self._changed_first_ms: float | None = None
        self._changed_last_ms = 0.0

    def is_due(self, now_ms: float, num_points: int, client: DrawingClient) -> bool:
        if num_points > self._num_seen:
            self._num_seen, self._changed_last_ms = num_points, now_ms
            self._changed_first_ms = self._changed_first_ms or now_ms
        if self._changed_first_ms is None or now_ms < self._sent_ms + client.interval_ms:
            return False
        if not client.pause_ms:
            return now_ms >= self._changed_first_ms + _COALESCE_MS
        has_rested = now_ms >= self._changed_last_ms + client.pause_ms
        return has_rested or now_ms >= self._changed_first_ms + _MAX_WAIT_MS

    def sent(self, now_ms: float, num_points: int) -> None:
        self.num_sent, self._sent_ms, self._changed_first_ms = num_points, now_ms, None
