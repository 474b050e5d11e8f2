"""More than can be served: what is accepted is served as fast as ever, the rest is told at once."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import httpx
import pytest

from tests.support.faked import ROUTE, Faked, body, faked

STEP_S = "0.05"
SECONDS = 20.0
FAIRNESS_S = 30.0
OVERLOAD_S = 60.0


@dataclass(frozen=True)
class Sample:
    status: int
    started: float
    elapsed_s: float
    retry_after: str | None


def rate_of(samples: list[Sample]) -> float:
    """Return answers a second, from the first request to the last answer.

    Who still waits when the last request has come is served after it, and that time counts too.
    """
    ended = max(sample.started + sample.elapsed_s for sample in samples)
    return len(samples) / (ended - min(sample.started for sample in samples))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def ask(http: httpx.AsyncClient, key: str = "") -> Sample:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    started = time.perf_counter()
    answer = await http.post(ROUTE, json=body(), headers=headers)
    elapsed_s = time.perf_counter() - started
    return Sample(answer.status_code, started, elapsed_s, answer.headers.get("retry-after"))


async def closed_loop(service: Faked, clients: int, seconds: float) -> list[Sample]:
    """Each client asks again as soon as it is answered."""
    ends = time.monotonic() + seconds

    async def one(http: httpx.AsyncClient) -> list[Sample]:
        samples = []
        while time.monotonic() < ends:
            samples.append(await ask(http))
        return samples

    async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
        found = await asyncio.gather(*(one(http) for _ in range(clients)))
    return [sample for samples in found for sample in samples]


async def open_loop(service: Faked, rate: float, seconds: float, key: str = "") -> list[Sample]:
    """Requests come at random times, whether or not earlier ones have been answered."""
    rng = random.Random(0)
    limits = httpx.Limits(max_connections=2000)
    tasks = []
    async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as http:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            tasks.append(asyncio.create_task(ask(http, key)))
            await asyncio.sleep(rng.expovariate(rate))
        return await asyncio.gather(*tasks)


@pytest.mark.slow
@pytest.mark.alone
def test_ten_times_the_capacity_costs_no_goodput() -> None:
    """Only 200 and 503 come back, as many pictures as at peak, and refusals at once with a time.

    Latencies are printed and gate nothing: other work shares the cores.
    """
    with faked(FAKE_STEP_S=STEP_S) as service:
        alone = asyncio.run(closed_loop(service, 4, SECONDS))
        peak = rate_of(alone)
        samples = asyncio.run(open_loop(service, 10 * peak, OVERLOAD_S))
        assert service.refine().status_code == 200
    assert {sample.status for sample in samples} <= {200, 503}
    refused = [sample for sample in samples if sample.status == 503]
    assert len(refused) > 0.7 * len(samples), "there was no overload"
    assert all(int(sample.retry_after or 0) >= 1 for sample in refused)
    served = [sample for sample in samples if sample.status == 200]
    goodput = rate_of(served)
    waits = [sample.elapsed_s for sample in refused]
    offered = len(samples) / OVERLOAD_S
    print(f"peak {peak:.1f}/s, goodput {goodput / peak:.0%}, offered {offered:.0f}/s")
    print(f"refusals p50 {percentile(waits, 0.5):.3f} s, p99 {percentile(waits, 0.99):.3f} s")
    assert goodput >= 0.75 * peak


@pytest.mark.slow
@pytest.mark.alone
def test_a_flood_leaves_another_key_its_share() -> None:
    """Key B, one request a second: all are served beside a flood of A, and the p95 is told."""

    async def lone_and_flooded(service: Faked) -> tuple[list[Sample], list[Sample]]:
        lone = await open_loop(service, 1.0, FAIRNESS_S, "b")  # the same moments as beside it
        _, flooded = await asyncio.gather(
            open_loop(service, 50.0, FAIRNESS_S, "a"), open_loop(service, 1.0, FAIRNESS_S, "b")
        )
        return lone, flooded

    with faked(FAKE_STEP_S=STEP_S, REFINE_API_KEYS="a,b") as service:
        lone, flooded = asyncio.run(lone_and_flooded(service))
    assert {sample.status for sample in flooded} == {200}
    p95s = [percentile([s.elapsed_s for s in samples], 0.95) for samples in (lone, flooded)]
    print(f"p95 lone {p95s[0]:.3f} s, beside a flood {p95s[1]:.3f} s, {p95s[1] / p95s[0]:.2f} x")
    # Twice is the target, 1.3 what an idle machine shows. Clients share the cores, so four times
    # fails; first come, first served would be fifty requests' time. Steps are counted, too, in
    # tests/engine/test_scheduler.py.
    assert p95s[1] < 4 * p95s[0]
