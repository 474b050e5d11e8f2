"""The front's end of a cluster: what it lets in, and what it makes of what the cluster tells."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from service.errors import (
    EngineRestarting,
    EngineStarting,
    GenerationFailed,
    QueueFull,
    RateLimited,
    RefineError,
)
from service.protocol.jobs import Finished, GenerationParams
from service.protocol.messages import Ready
from service.ray_serve.client import RayEngineClient, Seen
from service.settings import Settings

IMAGE = np.zeros((8, 8, 3), np.uint8)
PARAMS = GenerationParams("", 8, 8, 4, 0.5, 8.0, (7,))
MAX_BATCH = 2
SETTINGS = Settings(queue_size=3, queue_per_key=1)
POLL_S = 0.001


class FakeEngines:
    """A cluster that is told how it is, and answers jobs when it is let."""

    def __init__(self, num_serving: int = 1) -> None:
        self.seen: Seen | ConnectionError = Seen(num_serving)
        self.jobs: list[asyncio.Future[Finished]] = []
        self.num_looks = 0
        self.num_cancelled = 0

    async def look(self) -> Seen:
        self.num_looks += 1
        if isinstance(self.seen, ConnectionError):
            raise self.seen
        return self.seen

    async def ready(self) -> Ready:
        return Ready("cpu", "float32", "pocket", MAX_BATCH)

    async def generate(self, *_: Any, timeout_s: float, **__: Any) -> Finished:
        assert timeout_s == 5
        self.jobs.append(asyncio.get_running_loop().create_future())
        try:
            return await self.jobs[-1]
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    def end(self, error: RefineError | None = None) -> None:
        """Answer the job that has waited longest."""
        job = next(job for job in self.jobs if not job.done())
        if error is None:
            job.set_result(Finished("job", IMAGE[None], 4, 0))
        else:
            job.set_exception(error)

    async def looked(self) -> None:
        """Wait until it was looked at anew."""
        before = self.num_looks
        while self.num_looks < before + 2:
            await asyncio.sleep(POLL_S)


def run(
    scenario: Callable[[RayEngineClient, FakeEngines], Awaitable[None]],
    engines: FakeEngines | None = None,
    settings: Settings = SETTINGS,
) -> None:
    engines = engines or FakeEngines()

    async def whole() -> None:
        client = RayEngineClient(settings, lambda: engines, POLL_S)
        await client.start()
        try:
            async with asyncio.timeout(30):
                await scenario(client, engines)
        finally:
            await client.stop()

    asyncio.run(whole())


def ask(client: RayEngineClient, caller: str = "") -> asyncio.Task[Finished]:
    return asyncio.ensure_future(client.generate(PARAMS, IMAGE, timeout_s=5, caller=caller))


def test_it_serves_with_the_first_engine_and_refuses_until_then() -> None:
    """Before: 503 with `Retry-After`. After: a job runs, and each engine is a member."""

    async def scenario(client: RayEngineClient, engines: FakeEngines) -> None:
        with pytest.raises(EngineStarting) as refused:
            client.check_accepts()
        assert refused.value.retry_after_s
        engines.seen = Seen(2)
        health = await client.wait_until("serving")
        assert [member.state for member in health.members] == ["serving"] * 2
        job = ask(client)
        await asyncio.sleep(0)
        assert client.health.num_pending == 1
        engines.end()
        assert (await job).num_steps_run == 4
        assert client.health.num_pending == 0

    run(scenario, FakeEngines(num_serving=0))


def test_without_engines_it_restarts_until_there_is_one() -> None:
    """All gone, or a controller that does not answer: 503 with `Retry-After`, then pictures."""

    async def scenario(client: RayEngineClient, engines: FakeEngines) -> None:
        await client.wait_until("serving")
        troubles: list[Seen | ConnectionError]
        troubles = [Seen(0), ConnectionError("the head node is gone"), Seen(0, "no GPU left")]
        for trouble in troubles:
            engines.seen = trouble
            await client.wait_until("restarting")
            await engines.looked()
            with pytest.raises(EngineRestarting) as refused:
                client.check_accepts()
            assert refused.value.retry_after_s
            engines.seen = Seen(1)
            await client.wait_until("serving")
            client.check_accepts()

    run(scenario)


def test_engines_that_cannot_start_are_told() -> None:
    """In the words of the cluster, whether it cannot be reached or cannot start them."""

    async def scenario(client: RayEngineClient, _: FakeEngines) -> None:
        assert (await client.wait_until("failed")).message == "no such checkpoint"

    engines = FakeEngines()
    engines.seen = Seen(0, "no such checkpoint")
    run(scenario, engines)

    def unreachable() -> FakeEngines:
        raise KeyError("nobody answers there")

    async def whole() -> None:
        client = RayEngineClient(SETTINGS, unreachable, POLL_S)
        await client.start()
        assert "nobody answers there" in (await client.wait_until("failed")).message

    asyncio.run(whole())


def test_a_start_can_be_given_up() -> None:
    """A service that is told to end does not wait for a cluster without room for its engines."""

    async def scenario(client: RayEngineClient, _: FakeEngines) -> None:
        await asyncio.sleep(5 * POLL_S)
        await client.stop()
        assert (await client.wait_until("stopped")).members == ()

    run(scenario, FakeEngines(num_serving=0))


def test_overload_is_told_by_whose_it_is() -> None:
    """Over its share a caller gets 429, over the queue all get 503, each with `Retry-After`."""

    async def scenario(client: RayEngineClient, engines: FakeEngines) -> None:
        await client.wait_until("serving")
        slots = MAX_BATCH  # of the one engine
        jobs = [ask(client, "greedy") for _ in range(slots + 1)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited) as limited:
            client.check_accepts("greedy")
        client.check_accepts("modest")
        jobs += [ask(client, "modest") for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as full:
            client.check_accepts("third")
        assert limited.value.retry_after_s
        assert full.value.retry_after_s
        engines.seen = Seen(2)
        await engines.looked()
        client.check_accepts("third")  # there is more room with another engine
        for _ in jobs:
            engines.end()
        await asyncio.gather(*jobs)

    run(scenario)


def test_a_caller_who_goes_is_told_to_the_cluster() -> None:
    """Cancelling the call cancels the job there, and its place is free."""

    async def scenario(client: RayEngineClient, engines: FakeEngines) -> None:
        await client.wait_until("serving")
        job = ask(client)
        await asyncio.sleep(0)
        job.cancel()
        await asyncio.wait([job])
        assert engines.num_cancelled == 1
        assert client.health.num_pending == 0

    run(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_any_course_of_events_keeps_count(seed: int) -> None:
    """Jobs that come, end, fail or go while engines come and go: none is lost or counted twice."""
    rng = random.Random(seed)
    settings = Settings(queue_size=4, queue_per_key=2)

    async def scenario(client: RayEngineClient, engines: FakeEngines) -> None:
        await client.wait_until("serving")
        jobs: list[asyncio.Task[Finished]] = []
        for _ in range(300):
            event = rng.random()
            running = [job for job in jobs if not job.done()]
            if event < 0.4:
                jobs.append(ask(client, rng.choice("abc")))
            elif event < 0.6 and running:
                engines.end(rng.choice([None, GenerationFailed("no"), EngineRestarting("lost")]))
            elif event < 0.7 and running:
                rng.choice(running).cancel()
            elif event < 0.85:
                seen, nobody = Seen(rng.randrange(3)), ConnectionError("nobody")
                engines.seen = seen if rng.random() < 0.6 else nobody
                await engines.looked()
            for _ in range(3):
                await asyncio.sleep(0)
            num_serving = engines.seen.num_serving if isinstance(engines.seen, Seen) else 0
            running = [job for job in jobs if not job.done()]
            assert client.health.state == ("serving" if num_serving else "restarting")
            assert client.health.num_pending == len(running)
            assert len(running) <= settings.queue_size + 2 * MAX_BATCH
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        assert client.health.num_pending == 0
        for job in jobs:
            assert job.cancelled() or job.exception() or job.result().num_steps_run == 4

    run(scenario, settings=settings)
