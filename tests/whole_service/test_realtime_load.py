"""Sixteen painters on one engine, a fake one that makes negatives, one after the other."""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from typing import Any

import numpy as np
from PIL import Image

from service.loadgen.report import percentile
from service.protocol.jobs import Finished
from service.realtime_client import LiveClient
from tests.support.fakes import FakeEngineClient
from tests.support.servers import START_S, running_server
from tests.support.sockets import picture

NUM_PAINTERS = 16
NUM_FRAMES = 10


class OneAtATime(FakeEngineClient):
    """Takes 5 ms for a picture, in the order of asking."""

    async def start(self) -> None:
        await super().start()
        self.turn = asyncio.Lock()

    async def generate(self, *arguments: Any, **options: Any) -> Finished:
        async with self.turn:
            await asyncio.sleep(0.005)
            return await super().generate(*arguments, **options)


async def draw(url: str, colour: tuple[int, int, int]) -> list[float]:
    """Draw in one colour, a frame after each answer; return the times, the pictures checked."""
    file, latencies_ms = picture(colour, "PNG"), []
    async with LiveClient(url) as live, asyncio.timeout(START_S):
        answers = aiter(live)
        for seed in range(NUM_FRAMES):
            before = time.perf_counter()
            frame_id = live.send(file, prompt="", seed=seed, outputFormat="png")
            answer = await anext(answers)
            assert (answer.kind, answer.id) == ("result", frame_id), answer
            latencies_ms.append(1000 * (time.perf_counter() - before))
            with Image.open(io.BytesIO(answer.files[0])) as image:
                assert np.all(np.asarray(image) == 255 - np.array(colour))
    return latencies_ms


def test_sixteen_painters_share_one_engine() -> None:
    """Each gets the negative of his own colour, and the worst p95 is within twice the mean."""

    async def crowd(url: str) -> list[list[float]]:
        colours = [(16 * index, 255 - 16 * index, 99) for index in range(NUM_PAINTERS)]
        return list(await asyncio.gather(*(draw(url, colour) for colour in colours)))

    with running_server(OneAtATime()) as url:
        p95s = [percentile(latencies_ms, 0.95) for latencies_ms in asyncio.run(crowd(url))]
    assert max(p95s) <= 2 * statistics.mean(p95s)
