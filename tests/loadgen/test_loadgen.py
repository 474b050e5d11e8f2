"""The load generator: its requests, their times, and the figures of their answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import QueueFull
from service.front.schemas.parsing import parse_body
from service.front.schemas.requests import RefineRequest
from service.loadgen.loops import NO_ANSWER, Run, Sample, Target, _arrivals, closed_loop, open_loop
from service.loadgen.report import figures, percentile
from service.loadgen.workload import Trace
from tests.support.fakes import FakeEngineClient
from tests.support.servers import KEY, running_server

COMMAND = Path(sys.executable).with_name("instant-refine")


@pytest.mark.parametrize("is_mixed", [False, True])
def test_trace(is_mixed: bool) -> None:
    """The same seed makes the same requests, another seed others, and all of them are valid."""

    def head(seed: int) -> list[bytes]:
        bodies = Trace(is_mixed=is_mixed, seed=seed).bodies()
        return [json.dumps(body).encode() for body in itertools.islice(bodies, 12)]

    first = head(1)
    assert first == head(1)
    assert first != head(2)
    requests = [parse_body(body, RefineRequest) for body in first]
    assert len({request.steps for request in requests}) > 1 or not is_mixed


def test_closed_loop() -> None:
    """Users send the next request when the last is answered; each request is a sample."""
    engine = FakeEngineClient()
    with running_server(engine, api_keys=KEY) as url:
        run = asyncio.run(closed_loop(Target(url, key=KEY), Trace().bodies(), users=3, seconds=0.5))
    assert len(run.samples) == len(engine.asked) >= 3
    assert {sample.status for sample in run.samples} == {200}
    assert all(0 < sample.engine_ms <= 15 for sample in run.samples)  # the fake's stages


def test_open_loop() -> None:
    """Requests come at their rate while none is answered; latency counts from when one was due."""
    num_requests = len(list(_arrivals(rate=40, seconds=1.0, seed=3)))

    async def scenario() -> Run:
        loading = asyncio.create_task(
            open_loop(Target(url), Trace().bodies(), rate=40, seconds=1.0, seed=3)
        )
        while len(engine.asked) < num_requests:
            await asyncio.sleep(0.02)
        engine.loop.call_soon_threadsafe(engine.is_open.set)
        return await loading

    engine = FakeEngineClient()
    with running_server(engine) as url:
        engine.is_open.clear()
        run = asyncio.run(asyncio.wait_for(scenario(), 120))
    assert 20 <= num_requests == len(run.samples) <= 70
    assert max(sample.latency_ms for sample in run.samples) > 900  # from the first to the last


def test_refusal_and_no_answer() -> None:
    """A refusal keeps its status; a server that is gone counts as no answer."""
    engine = FakeEngineClient()
    engine.refusals.append(QueueFull("full"))
    with running_server(engine) as url:
        run = asyncio.run(closed_loop(Target(url), Trace().bodies(), users=1, seconds=0.2))
        assert run.samples[0].status == 503
        assert run.samples[1].status == 200
    gone = asyncio.run(closed_loop(Target(url), Trace().bodies(), users=1, seconds=0.01))
    assert {sample.status for sample in gone.samples} == {NO_ANSWER}
    assert figures(gone, 300)["pictures_per_s"] == 0


def test_figures() -> None:
    """Goodput counts pictures within the limit; percentiles are of pictures only."""
    samples = [Sample(200, float(ms), 1.0) for ms in range(1, 101)] + [Sample(503, 9999.0)]
    values = figures(Run(10.0, samples), limit_ms=50)
    assert (values["pictures_per_s"], values["goodput_per_s"]) == (10.0, 5.0)
    assert (values["p50_ms"], values["p99_ms"]) == (51.0, 100.0)
    assert values["answers"] == "100 x 200, 1 x 503"
    assert percentile([], 0.5) == 0.0
    assert figures(Run(1.0), limit_ms=50)["answers"] == "none"


def test_command() -> None:
    """`instant-refine bench` prints JSON; its exit code is 1 if the key is missing."""
    with running_server(api_keys=KEY) as url:
        words = [str(COMMAND), "bench", url, "--users", "2", "--seconds", "0.5"]
        ended = subprocess.run([*words, "--key", KEY], capture_output=True, text=True, check=True)
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
    assert json.loads(ended.stdout)["pictures_per_s"] > 0
    assert refused.returncode == 1
    assert "401" in refused.stdout
