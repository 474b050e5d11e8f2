"""Requests at a server, in a closed loop of users or at a rate of their own; what came of them.

In the closed loop a user asks again when he is answered, so a slow server is asked less. In the
open loop requests come at random moments (Poisson) whatever the server does, and latency counts
from the moment a request was due: no wait is left out (coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

_ENGINE_STAGES = frozenset({"queue", "text", "encode", "denoise", "vae"})
_TIMEOUT_S = 120.0
NO_ANSWER = 0
"""The status of a request that was not answered at all."""


@dataclass(frozen=True)
class Sample:
    """One request: its status, its latency, and the part that the engine accounts for."""

    status: int
    latency_ms: float
    engine_ms: float = 0.0


@dataclass
class Run:
    """What a run of a load generator saw."""

    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where to send requests. `url` is a server's, `key` its bearer key, if it wants one."""

    url: str
    route: str = "/lcm-instant-refine"
    key: str = ""

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=_TIMEOUT_S, limits=limits
        )

    async def ask(self, http: httpx.AsyncClient, body: dict[str, Any], due: float) -> Sample:
        """Send one request that was due at `due` on `perf_counter`'s clock."""
        try:
            answer = await http.post(self.route, json=body)
        except httpx.TransportError:
            return Sample(NO_ANSWER, _ms_since(due))
        return Sample(answer.status_code, _ms_since(due), _engine_ms(answer.headers))


OnSample = Callable[[Sample], None]


@dataclass(frozen=True)
class Load:
    """How hard to ask, and for how long: `rate` requests a second, or where None `users`."""

    users: int = 8
    rate: float | None = None
    seconds: float = 20.0

    def __str__(self) -> str:
        return f"{self.users} users" if self.rate is None else f"{self.rate:g} requests/s"


async def run_load(
    target: Target,
    bodies: Iterator[dict[str, Any]],
    load: Load,
    on_sample: OnSample = lambda _: None,
) -> Run:
    """Put a load on a server and return what it answered."""
    if load.rate is None:
        return await closed_loop(
            target, bodies, users=load.users, seconds=load.seconds, on_sample=on_sample
        )
    return await open_loop(
        target, bodies, rate=load.rate, seconds=load.seconds, on_sample=on_sample
    )


async def closed_loop(
    target: Target,
    bodies: Iterator[dict[str, Any]],
    *,
    users: int,
    seconds: float,
    on_sample: OnSample = lambda _: None,
) -> Run:
    """Let each of `users` ask again as soon as it is answered, until the time is up."""
    run = Run()

    async def one_user() -> None:
        while time.perf_counter() - started < seconds:
            _keep(run, await target.ask(http, next(bodies), time.perf_counter()), on_sample)

    async with target.client() as http:
        started = time.perf_counter()
        await asyncio.gather(*(one_user() for _ in range(users)))
    run.seconds = time.perf_counter() - started
    return run


async def open_loop(
    target: Target,
    bodies: Iterator[dict[str, Any]],
    *,
    rate: float,
    seconds: float,
    seed: int = 0,
    on_sample: OnSample = lambda _: None,
) -> Run:
    """Ask `rate` times a second on average, at random moments, whatever is still unanswered."""
    run = Run()

    async def one_request(due: float) -> None:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        _keep(run, await target.ask(http, next(bodies), due), on_sample)

    async with target.client() as http, asyncio.TaskGroup() as group:
        started = time.perf_counter()
        for offset in _arrivals(rate, seconds, seed):
            group.create_task(one_request(started + offset))
    run.seconds = time.perf_counter() - started
    return run


def _arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield the moments of a Poisson process of `rate` a second, in seconds from its start."""
    lot, moment = random.Random(seed), 0.0  # noqa: S311 - to be the same again
    while (moment := moment + lot.expovariate(rate)) < seconds:
        yield moment


def _keep(run: Run, sample: Sample, on_sample: OnSample) -> None:
    run.samples.append(sample)
    on_sample(sample)


def _ms_since(moment: float) -> float:
    return 1000 * (time.perf_counter() - moment)


def _engine_ms(headers: httpx.Headers) -> float:
    stages = re.findall(r"(\w+);dur=([\d.]+)", headers.get("server-timing", ""))
    return sum(float(elapsed) for name, elapsed in stages if name in _ENGINE_STAGES)
