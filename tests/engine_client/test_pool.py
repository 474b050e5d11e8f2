"""Several engines behind one client: who gets a job, and what becomes of it when one dies."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from service.engine_client.local import LocalEngineClient
from service.engine_client.pool import EnginePool, local_client
from service.errors import EngineRestarting, EngineStarting, QueueFull, RefineError
from service.protocol.jobs import Finished, GenerationParams, Job
from service.protocol.messages import Fatal
from service.settings import EngineSettings, Settings
from tests.engine_client.test_local import HASTE, IMAGE, FakeProcess, FakeSpawner, silent

SETTINGS = EngineSettings(max_waiting=64)


def params(seed: int = 7, rows: int = 1, steps: int = 4) -> GenerationParams:
    return GenerationParams("", 8, 8, steps, 0.5, 8.0, (seed,) * rows)


def run(scenario: Callable[[EnginePool], Awaitable[None]], *spawners: FakeSpawner) -> None:
    async def whole() -> None:
        members = [LocalEngineClient(SETTINGS, spawner, HASTE) for spawner in spawners]
        pool = EnginePool(members)
        await pool.start()
        try:
            async with asyncio.timeout(20):
                await scenario(pool)
        finally:
            await pool.stop()

    asyncio.run(whole())


async def all_serve(pool: EnginePool) -> None:
    while any(member.state != "serving" for member in pool.health.members):
        await asyncio.sleep(0.01)


def ask(pool: EnginePool, seed: int = 7, rows: int = 1) -> asyncio.Future[Finished]:
    return asyncio.ensure_future(pool.generate(params(seed, rows), IMAGE, timeout_s=5))


def test_the_engine_with_the_least_work_gets_the_next_job() -> None:
    """Rows and steps count, not jobs: beside one job of four rows there is room for three."""
    spawners = (FakeSpawner(silent), FakeSpawner(silent))

    async def scenario(pool: EnginePool) -> None:
        await all_serve(pool)
        jobs = [ask(pool, rows=4)]
        for _ in range(4):
            await asyncio.sleep(0)
            jobs.append(ask(pool))
        await asyncio.sleep(0)
        assert [health.num_pending for health in pool.health.members] == [1, 4]
        assert pool.health.num_pending == 5
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        assert pool.health.num_pending == 0

    run(scenario, *spawners)


def test_work_grows_with_rows_steps_and_pixels() -> None:
    """Twice the rows are twice the work, and more steps are more."""
    assert params(rows=2).work == 2 * params().work
    assert params(steps=8).work > params(steps=4).work


def test_a_dead_engine_is_left_out_until_it_is_back() -> None:
    """While one restarts the other serves all; its job is the caller's to send again."""
    dying, living = FakeSpawner(silent), FakeSpawner()

    async def scenario(pool: EnginePool) -> None:
        await all_serve(pool)
        lost = ask(pool)
        await asyncio.sleep(0.02)
        dying.reply = FakeProcess.finish
        dying.processes[0].kill()
        with pytest.raises(EngineRestarting):
            await lost
        assert pool.health.state == "serving"
        again = await asyncio.gather(*(ask(pool, seed) for seed in range(4)))
        assert [int(finished.images.max()) for finished in again] == [0, 1, 2, 3]
        await all_serve(pool)

    run(scenario, dying, living)
    assert len(dying.processes) == 2
    assert len(living.processes) == 1


def test_the_pool_is_ready_with_its_first_engine_and_fails_with_its_last() -> None:
    """One engine is enough to serve, and to go on when another cannot be started."""
    broken, slow = FakeSpawner(is_ready=False), FakeSpawner(is_ready=False)

    async def scenario(pool: EnginePool) -> None:
        assert pool.health.state == "starting"
        with pytest.raises(EngineStarting):
            pool.check_accepts()
        broken.processes[0].engine.send(Fatal("no memory on this device"))
        while pool.health.members[0].state != "failed":
            await asyncio.sleep(0.01)
        assert pool.health.state == "starting"
        slow.processes[0].engine.send(Fatal("nor on that"))
        assert (await pool.wait_until("failed")).message

    run(scenario, broken, slow)


def test_a_full_pool_says_so_rather_than_that_one_restarts() -> None:
    """The caller is told what most of the pool is: full, with the time after which to ask."""

    class Refusing(LocalEngineClient):
        def __init__(self, refusal: RefineError) -> None:
            super().__init__(SETTINGS)
            self.refusal = refusal

        def check_accepts(self, caller: str = "", timeout_s: float = math.inf) -> None:  # noqa: ARG002
            raise self.refusal

    pool = EnginePool([Refusing(EngineRestarting("")), Refusing(QueueFull("", retry_after_s=9))])
    with pytest.raises(QueueFull) as raised:
        pool.check_accepts()
    assert raised.value.retry_after_s == 9


def test_cores_and_queue_are_shared_among_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines on a machine of four cores have two threads each, and half of the queue."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    engines = Settings(device="cpu, cpu").engines()
    assert [(engine.device, engine.num_threads) for engine in engines] == [("cpu", 2)] * 2
    assert sum(engine.max_waiting for engine in engines) == Settings().queue_size
    assert Settings().engines()[0].num_threads == 0
    assert isinstance(local_client(Settings(device="cuda:0,cuda:1")), EnginePool)
    assert isinstance(local_client(Settings()), LocalEngineClient)


@pytest.mark.parametrize("seed", range(4))
def test_invariants_hold_while_engines_die_at_random(seed: int) -> None:
    """Each call ends once, with its own picture or a reason; no work is left on the books."""
    rng = random.Random(seed)

    def whim(process: FakeProcess, job: Job) -> None:
        if rng.random() < 0.9:
            process.finish(job)
        else:
            process.kill()

    async def one_call(pool: EnginePool, number: int) -> None:
        try:
            result = await ask(pool, number)
        except RefineError:
            return
        assert int(result.images.max()) == number

    async def scenario(pool: EnginePool) -> None:
        for number in range(1, 40):
            await pool.wait_until("serving")
            await asyncio.gather(*(one_call(pool, number + extra) for extra in range(4)))
            assert pool.health.num_pending == 0
            assert np.allclose(pool._work, 0)

    run(scenario, FakeSpawner(whim), FakeSpawner(whim), FakeSpawner(whim))
