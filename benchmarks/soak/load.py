"""What a service meets in a day, in small: painters, hostile callers, callers who go, scrapes."""

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
from service.front.dataurl import to_data_url
from service.live import LiveClient

ROUTES = ("/lcm-instant-refine", "/generations-lcm")
RARER: tuple[tuple[str, dict[str, str]], ...] = (
    ("/lcm-inpainting", {"maskDataUrl": GOOD}),
    ("/lcm-upscale", {}),
)
_JSON = {"content-type": "application/json"}
_ANSWER_S = 120.0
_NUM_WARMING = 4

# What a sound service answers where others use the machine: too late, or that it would be.
_BUSY = frozenset({"503", "504", "error overloaded", "error deadline-exceeded"})
_MOST_BUSY = 0.1
_PICTURES_PER_HOUR = 1000
"""What a run needs at least to tell anything of hours."""


def hostile_bodies() -> list[bytes]:
    pictures = [to_data_url(data, "png") for data in files().values()]
    wrapped = [request(imageDataUrl=url) for url in [*pictures, *texts().values()]]
    return [*wrapped, *bodies().values()]


def request(**fields: object) -> bytes:
    return json.dumps({"imageDataUrl": GOOD, "prompt": "a boat", **fields}).encode()


class Mix:
    """Callers of each kind, a few at a time; `counts` holds what they were answered."""

    def __init__(self, url: str, pace_s: float) -> None:
        self._url, self._pace_s = url, pace_s
        self._rng = random.Random(6)
        self._hostile = hostile_bodies()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.is_warm = asyncio.Event()
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._num_calls = 0

    async def _warm_up(self) -> None:
        """Send each kind of body once: later on none is the first to need as much memory."""
        bodies = iter(self._hostile)

        async def send(http: httpx.AsyncClient) -> None:
            for body in bodies:
                await self._post(http, "hostile", body)

        async with self.http() as http:
            await asyncio.gather(*(send(http) for _ in range(_NUM_WARMING)))
            await self._other_routes(http)

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, timeout=_ANSWER_S)

    async def run(self) -> None:
        """Warm up, then call until cancelled."""
        await self._warm_up()
        self.is_warm.set()
        async with self.http() as http:
            callers = [(self._good, 1.0), (self._good, 1.0), (self._bad, 4.0), (self._gone, 4.0)]
            rarer = [(self._session, 10.0), (self._other_routes, 60.0), (self._scrape, 20.0)]
            async with asyncio.TaskGroup() as tasks:
                for caller, pace in [*callers, *rarer]:
                    tasks.create_task(self._again(caller, http, pace * self._pace_s))

    async def _again(
        self, caller: Callable[[httpx.AsyncClient], Awaitable[None]], http: httpx.AsyncClient,
        pace_s: float,
    ) -> None:  # fmt: skip
        while True:
            await self._goes_on.wait()
            self._num_calls += 1
            self._is_quiet.clear()
            await caller(http)
            self._num_calls -= 1
            if not self._num_calls:
                self._is_quiet.set()
            await asyncio.sleep(pace_s * self._rng.uniform(0.5, 1.5))

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Let no caller call within it, after those that do have been answered."""
        self._goes_on.clear()
        try:
            await self._is_quiet.wait()
            yield
        finally:
            self._goes_on.set()

    async def _good(self, http: httpx.AsyncClient) -> None:
        content = request(seed=self._rng.randrange(1000), prompt=f"boat {self._rng.random()}")
        await self._post(http, "good", content)

    async def _other_routes(self, http: httpx.AsyncClient) -> None:
        for route, fields in RARER:
            content = request(seed=self._rng.randrange(1000), **fields)
            await self._post(http, "good", content, route)

    async def _bad(self, http: httpx.AsyncClient) -> None:
        await self._post(http, "hostile", self._rng.choice(self._hostile))

    async def _post(
        self, http: httpx.AsyncClient, kind: str, content: bytes, route: str = ""
    ) -> None:
        """Post a body; who is asked to come again later waits for so long."""
        route = route or self._rng.choice(ROUTES)
        try:
            answer = await http.post(route, content=content, headers=_JSON)
            self.counts[kind, str(answer.status_code)] += 1
            await asyncio.sleep(float(answer.headers.get("retry-after", 0)))
        except httpx.TransportError as error:
            self.counts[kind, type(error).__name__] += 1

    async def _gone(self, http: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(self._rng.uniform(0, 0.3)):
                await http.post(ROUTES[0], content=request(steps=8), headers=_JSON)
        except (TimeoutError, httpx.TransportError):
            self.counts["disconnect", "gone"] += 1
        else:
            self.counts["disconnect", "answered"] += 1

    async def _session(self, _: httpx.AsyncClient) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S), LiveClient(self._url) as live:
                for _number in range(3):
                    seed = self._rng.randrange(1000)
                    live.send(WHOLE["jpeg"], prompt="a boat", seed=seed)
                    answer = await anext(aiter(live))
                    told = (
                        f"error {answer.content['code']}" if answer.kind == "error" else answer.kind
                    )
                    self.counts["session", told] += 1
        except TimeoutError:
            self.counts["session", "no answer"] += 1

    async def _scrape(self, http: httpx.AsyncClient) -> None:
        try:
            status = str((await http.get("/metrics")).status_code)
        except httpx.TransportError as error:
            status = type(error).__name__
        self.counts["scrape", status] += 1

    def failures(self, seconds: float) -> list[str]:
        """Tell which answers a sound service would not have given, or whether it got too few."""
        wrong = [
            f"{count} x {kind}: {answer}"
            for (kind, answer), count in self.counts.items()
            if answer not in _BUSY and _is_wrong(kind, answer)
        ]
        num_busy = sum(count for (_, answer), count in self.counts.items() if answer in _BUSY)
        num_pictures = self.counts["good", str(int(HTTPStatus.OK))]
        if (
            num_busy > _MOST_BUSY * num_pictures
            or num_pictures < _PICTURES_PER_HOUR * seconds / 3600
        ):
            told = f"{num_pictures} pictures, {num_busy} refused or late"
            wrong.append(f"the machine is too busy to tell: {told}")
        return wrong


def _is_wrong(kind: str, answer: str) -> bool:
    if kind == "hostile":
        return not answer.isdigit() or int(answer) >= HTTPStatus.INTERNAL_SERVER_ERROR
    allowed = {"good": {"200"}, "scrape": {"200"}, "session": {"result", "replaced"}}
    return answer not in allowed.get(kind, {answer})
