"""The client's life with its engine: whatever the engine does, every caller gets an answer."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.engine_client.local import LocalEngineClient
from service.engine_client.supervisor import WatchdogTimeouts
from service.errors import (
    DeadlineExceeded,
    EngineRestarting,
    EngineStarting,
    GenerationFailed,
    QueueFull,
    RefineError,
)
from service.protocol.connection import Connection
from service.protocol.jobs import Failed, Finished, GenerationParams, Job, Progress
from service.protocol.messages import Abort, Add, Fatal, Heartbeat, Ready
from service.settings import EngineSettings

IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)
READY = Ready("cpu", "float32", "fake", max_batch=1)
SETTINGS = EngineSettings(max_waiting=4)
HASTE = WatchdogTimeouts(first_backoff_s=0.02, steady_s=0)


def params(seed: int) -> GenerationParams:
    return GenerationParams("", 8, 8, 4, 0.5, 8.0, (seed,))


@dataclass
class FakeProcess:
    """An engine on the other end of a socket pair: it answers what `reply` tells it to."""

    reply: Callable[[FakeProcess, Job], None]
    is_ready: bool = True
    exit_code: int = 0
    aborted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours)
        self.engine = Connection(theirs)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> int:
        self._thread.join(5)
        return self.exit_code

    def kill(self) -> None:
        self.engine.close()

    def finish(self, job: Job) -> None:
        # The picture carries its seed, so that a test sees whose it is.
        image = np.full((1, 8, 8, 3), job.params.seeds[0] % 256, dtype=np.uint8)
        self.engine.send(Finished(job.id, image, 4, 0))

    def _run(self) -> None:
        try:
            self.engine.send(Heartbeat("loading"))
            if self.is_ready:
                self.engine.send(READY)
            while True:
                message = self.engine.receive()
                if isinstance(message, Add):
                    self.reply(self, message.job)
                elif isinstance(message, Abort):
                    self.aborted.append(message.job_id)
        except (EOFError, OSError):
            self.engine.close()


class FakeSpawner:
    """Starts fake engines and keeps them for the test to look at."""

    def __init__(
        self,
        reply: Callable[[FakeProcess, Job], None] = FakeProcess.finish,
        *,
        is_ready: bool = True,
    ) -> None:
        self.reply = reply
        self.is_ready = is_ready
        self.processes: list[FakeProcess] = []

    def __call__(self, _settings: EngineSettings) -> FakeProcess:
        self.processes.append(FakeProcess(self.reply, self.is_ready))
        return self.processes[-1]


def run(
    scenario: Callable[[LocalEngineClient], Awaitable[None]], spawner: FakeSpawner
) -> LocalEngineClient:
    async def whole() -> LocalEngineClient:
        client = LocalEngineClient(SETTINGS, spawn=spawner, patience=HASTE)
        await client.start()
        try:
            async with asyncio.timeout(20):
                await scenario(client)
        finally:
            await client.stop()
        return client

    return asyncio.run(whole())


def generate(client: LocalEngineClient, seed: int = 7) -> Awaitable[Finished]:
    return client.generate(params(seed), IMAGE, timeout_s=5)


def silent(_process: FakeProcess, _job: Job) -> None:
    """Never answer."""


def test_each_caller_gets_their_own_picture() -> None:
    """Answers that come back in another order still reach who asked."""
    held: list[Job] = []

    def reversed_reply(process: FakeProcess, job: Job) -> None:
        held.append(job)
        if len(held) == 4:
            for other in reversed(held):
                process.finish(other)

    async def scenario(client: LocalEngineClient) -> None:
        await client.wait_until("serving")
        results = await asyncio.gather(*(generate(client, seed) for seed in range(4)))
        assert [int(result.images.max()) for result in results] == [0, 1, 2, 3]
        assert client.health.num_pending == 0

    run(scenario, FakeSpawner(reversed_reply))


def test_before_the_engine_is_ready_it_is_starting() -> None:
    """Until the checkpoint is loaded a caller is told to come back, and the phase is known."""

    async def scenario(client: LocalEngineClient) -> None:
        with pytest.raises(EngineStarting) as raised:
            await generate(client)
        assert raised.value.retry_after_s
        while client.health.phase != "loading":
            await asyncio.sleep(0.01)

    run(scenario, FakeSpawner(is_ready=False))


def test_a_full_queue_refuses_at_once() -> None:
    """One more than may wait and run is refused, with the wait that it would have had."""

    async def scenario(client: LocalEngineClient) -> None:
        await client.wait_until("serving")
        tasks = [asyncio.ensure_future(generate(client)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as raised:
            await generate(client)
        assert raised.value.retry_after_s is not None
        assert 1 <= raised.value.retry_after_s <= 60
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert client.health.num_pending == 0

    run(scenario, FakeSpawner(silent))


def test_a_cancelled_call_aborts_its_job() -> None:
    """When the caller goes, the engine is told."""
    spawner = FakeSpawner(silent)

    async def scenario(client: LocalEngineClient) -> None:
        await client.wait_until("serving")
        task = asyncio.ensure_future(generate(client))
        await asyncio.sleep(0.05)
        task.cancel()
        while not spawner.processes[0].aborted:
            await asyncio.sleep(0.01)

    run(scenario, spawner)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("generation-failed", GenerationFailed),
        ("deadline-exceeded", DeadlineExceeded),
        ("overloaded", QueueFull),
    ],
)
def test_failures_come_back_as_errors(code: str, error: type[RefineError]) -> None:
    """The engine's codes become the errors that the front answers with."""

    def fail(process: FakeProcess, job: Job) -> None:
        process.engine.send(Failed(job.id, code))

    async def scenario(client: LocalEngineClient) -> None:
        await client.wait_until("serving")
        with pytest.raises(error):
            await generate(client)

    run(scenario, FakeSpawner(fail))


def test_progress_reaches_who_asked_for_it() -> None:
    """Steps are told while the job runs, to its own caller."""

    def stepwise(process: FakeProcess, job: Job) -> None:
        assert job.reports_progress
        for step in (1, 2):
            process.engine.send(Progress(job.id, step, 2))
        process.finish(job)

    async def scenario(client: LocalEngineClient) -> None:
        await client.wait_until("serving")
        steps: list[int] = []
        await client.generate(
            params(1), IMAGE, timeout_s=5, on_progress=lambda done: steps.append(done.step)
        )
        assert steps == [1, 2]

    run(scenario, FakeSpawner(stepwise))


def test_an_engine_that_ends_is_started_again() -> None:
    """Who waited is told to try again; a new engine serves after the backoff."""
    spawner = FakeSpawner(silent)

    async def scenario(client: LocalEngineClient) -> None:
        await client.wait_until("serving")
        task = asyncio.ensure_future(generate(client))
        await asyncio.sleep(0.02)
        spawner.reply = FakeProcess.finish
        spawner.processes[0].kill()
        with pytest.raises(EngineRestarting) as raised:
            await task
        assert raised.value.retry_after_s
        assert client.health.state == "restarting"
        with pytest.raises(EngineRestarting):
            await generate(client)
        await client.wait_until("serving")
        assert int((await generate(client, 9)).images.max()) == 9

    run(scenario, spawner)
    assert len(spawner.processes) == 2


def test_a_fault_of_the_operator_is_not_tried_again() -> None:
    """A checkpoint that cannot be loaded is told in the engine's own words, once."""
    spawner = FakeSpawner(is_ready=False)

    async def scenario(client: LocalEngineClient) -> None:
        spawner.processes[0].engine.send(Fatal("no such device"))
        health = await client.wait_until("failed")
        assert health.message == "no such device"
        spawner.processes[0].kill()
        await asyncio.sleep(0.1)
        assert client.health.state == "failed"

    run(scenario, spawner)
    assert len(spawner.processes) == 1


@pytest.mark.parametrize("seed", range(8))
def test_invariants_hold_over_random_lives(seed: int) -> None:
    """Engines that answer, fail, stay silent or die: each call ends, once, with its own picture."""
    rng = random.Random(seed)

    def whim(process: FakeProcess, job: Job) -> None:
        chance = rng.random()
        if chance < 0.5:
            process.finish(job)
        elif chance < 0.7:
            process.engine.send(Failed(job.id, "generation-failed"))
        elif chance < 0.85:
            process.kill()

    async def one_call(client: LocalEngineClient, number: int) -> None:
        try:
            async with asyncio.timeout(0.2):
                result = await generate(client, number)
        except (RefineError, TimeoutError):
            return
        assert int(result.images.max()) == number

    async def scenario(client: LocalEngineClient) -> None:
        for number in range(1, 60):
            await client.wait_until("serving")
            calls = [one_call(client, number + extra) for extra in range(rng.randint(1, 4))]
            await asyncio.gather(*calls)
            assert client.health.num_pending == 0

    assert run(scenario, FakeSpawner(whim)).health.state == "stopped"
