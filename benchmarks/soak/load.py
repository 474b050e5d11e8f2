"""A day of a service in small: users, hostile callers, callers who disconnect, scrapes."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx

from benchmarks.soak.golden_files import WHOLE
from benchmarks.soak.hostile_bodies import GOOD, bodies, files, texts
from service.front.images.data_url import to_data_url
from service.realtime_client import RealtimeClient

_ROUTES = ("/lcm-instant-refine", "/generations-lcm")
_RARE_ROUTES: dict[str, dict[str, str]] = {
    "/lcm-inpainting": {"maskDataUrl": GOOD},
    "/lcm-upscale": {},
}
_JSON = {"content-type": "application/json"}
_TIMEOUT_S = 120.0
_NUM_WARMING = 4

# What a sound service answers on a machine that is busy with other work: a refusal, or too late.
_BUSY = frozenset({"503", "504", "error overloaded", "error deadline-exceeded"})
_MAX_BUSY = 0.1
_MIN_PICTURES_PER_HOUR = 1000  # fewer say nothing about hours

Caller = Callable[[httpx.AsyncClient], Awaitable[None]]


def request(**fields: object) -> bytes:
    return json.dumps({"imageDataUrl": GOOD, "prompt": "a boat", **fields}).encode()


def hostile_bodies() -> list[bytes]:
    pictures = [to_data_url(data, "png") for data in files().values()]
    wrapped = [request(imageDataUrl=url) for url in [*pictures, *texts().values()]]
    return [*wrapped, *bodies().values()]


class MixedLoad:
    """Callers of each kind, a few at a time; `counts` has their answers by kind."""

    def __init__(self, url: str, pace_s: float) -> None:
        self._url, self._pace_s = url, pace_s
        self._rng = random.Random(6)
        self._hostile = hostile_bodies()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.is_warm = asyncio.Event()
        self._may_call, self._is_quiet = asyncio.Event(), asyncio.Event()
        self._may_call.set()
        self._is_quiet.set()
        self._num_calls = 0

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT_S)

    async def run(self) -> None:
        """Warm up, then call until cancelled."""
        async with self.http() as http:
            await self._warm_up(http)
            self.is_warm.set()
            paces: list[tuple[Caller, float]] = [
                (self._good, 1.0), (self._good, 1.0), (self._bad, 4.0), (self._gone, 4.0),
                (self._session, 10.0), (self._rare_routes, 60.0), (self._scrape, 20.0),
            ]  # fmt: skip
            async with asyncio.TaskGroup() as tasks:
                for caller, pace in paces:
                    tasks.create_task(self.repeat(caller, http, pace * self._pace_s))

    async def _warm_up(self, http: httpx.AsyncClient) -> None:
        """Send each kind of body once: none is the first to need its memory later."""
        hostile = iter(self._hostile)

        async def send() -> None:
            for body in hostile:
                await self._post(http, "hostile", body)

        await asyncio.gather(*(send() for _ in range(_NUM_WARMING)))
        await self._rare_routes(http)

    async def repeat(self, caller: Caller, http: httpx.AsyncClient, pace_s: float) -> None:
        """Call again and again, about every `pace_s` after the last answer."""
        while True:
            await self._may_call.wait()
            self._num_calls += 1
            self._is_quiet.clear()
            await caller(http)
            self._num_calls -= 1
            if not self._num_calls:
                self._is_quiet.set()
            await asyncio.sleep(pace_s * self._rng.uniform(0.5, 1.5))

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Wait until all calls are answered, and hold new ones back inside the context."""
        self._may_call.clear()
        try:
            await self._is_quiet.wait()
            yield
        finally:
            self._may_call.set()

    async def _good(self, http: httpx.AsyncClient) -> None:
        content = request(seed=self._rng.randrange(1000), prompt=f"boat {self._rng.random()}")
        await self._post(http, "good", content)

    async def _rare_routes(self, http: httpx.AsyncClient) -> None:
        for route, fields in _RARE_ROUTES.items():
            content = request(seed=self._rng.randrange(1000), **fields)
            await self._post(http, "good", content, route)

    async def _bad(self, http: httpx.AsyncClient) -> None:
        await self._post(http, "hostile", self._rng.choice(self._hostile))

    async def _post(
        self, http: httpx.AsyncClient, kind: str, content: bytes, route: str = ""
    ) -> None:
        """Post a body, and wait as long as a `Retry-After` says."""
        try:
            answer = await http.post(
                route or self._rng.choice(_ROUTES), content=content, headers=_JSON
            )
            self.counts[kind, str(answer.status_code)] += 1
            await asyncio.sleep(float(answer.headers.get("retry-after", 0)))
        except httpx.TransportError as error:
            self.counts[kind, type(error).__name__] += 1

    async def _gone(self, http: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(self._rng.uniform(0, 0.3)):
                await http.post(_ROUTES[0], content=request(steps=8), headers=_JSON)
        except (TimeoutError, httpx.TransportError):
            self.counts["disconnect", "gone"] += 1
        else:
            self.counts["disconnect", "answered"] += 1

    async def _session(self, _: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S), RealtimeClient(self._url) as live:
                for _number in range(3):
                    seed = self._rng.randrange(1000)
                    live.send(WHOLE["jpeg"], prompt="a boat", seed=seed)
                    answer = await anext(aiter(live))
                    code = f" {answer.content['code']}" if answer.kind == "error" else ""
                    self.counts["session", answer.kind + code] += 1
        except TimeoutError:
            self.counts["session", "no answer"] += 1

    async def _scrape(self, http: httpx.AsyncClient) -> None:
        try:
            status = str((await http.get("/metrics")).status_code)
        except httpx.TransportError as error:
            status = type(error).__name__
        self.counts["scrape", status] += 1

    def failures(self, seconds: float) -> list[str]:
        """Return the answers that a sound service does not give, and whether pictures are few."""
        wrong = [
            f"{count} x {kind}: {answer}"
            for (kind, answer), count in self.counts.items()
            if answer not in _BUSY and _is_wrong(kind, answer)
        ]
        num_busy = sum(count for (_, answer), count in self.counts.items() if answer in _BUSY)
        num_pictures = self.counts["good", str(int(HTTPStatus.OK))]
        wanted = _MIN_PICTURES_PER_HOUR * seconds / 3600
        if num_busy > _MAX_BUSY * num_pictures or num_pictures < wanted:
            wrong.append(
                f"the machine is too busy for a verdict: {num_pictures} pictures, {num_busy} "
                f"refused or late; at least {wanted:.0f} and at most {_MAX_BUSY:.0%} are needed"
            )
        return wrong


def _is_wrong(kind: str, answer: str) -> bool:
    if kind == "hostile":
        return not answer.isdigit() or int(answer) >= HTTPStatus.INTERNAL_SERVER_ERROR
    allowed = {"good": {"200"}, "scrape": {"200"}, "session": {"result", "replaced"}}
    return answer not in allowed.get(kind, {answer})
