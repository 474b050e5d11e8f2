"""Sixteen painters on one real engine."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.soak.picture_files import encoded, scene
from service.engine_client.local import LocalEngineClient
from service.loadgen.report import percentile
from service.realtime_client import RealtimeClient
from service.settings import Settings
from tests.support.servers import START_S, running_server

NUM_PAINTERS = 16
NUM_FRAMES = 4
ROUTE = "lcm-instant-refine"


async def draw(url: str, index: int, num_frames: int) -> tuple[list[bytes], list[float]]:
    """Draw in a colour of one's own, a frame after each answer; return pictures and times."""
    own = Image.new("RGB", (512, 512), (16 * index, 255 - 16 * index, 99))
    file = encoded(Image.blend(scene(512, 512), own, 0.7), "PNG")
    files, latencies_ms = [], []
    async with RealtimeClient(url) as live, asyncio.timeout(START_S):
        answers = aiter(live)
        for number in range(num_frames):
            before = time.perf_counter()
            # Two seeds in turn: equal frames one after the other would not reach the engine.
            frame_id = live.send(file, route=ROUTE, prompt="a red heart", seed=number % 2, steps=4)
            answer = await anext(answers)
            assert (answer.kind, answer.id) == ("result", frame_id), answer
            latencies_ms.append(1000 * (time.perf_counter() - before))
            files.append(answer.files[0])
    return files, latencies_ms


@pytest.mark.slow
@pytest.mark.alone
def test_sixteen_painters_share_one_engine(tiny_checkpoint: Path) -> None:
    """Each gets the pictures of his own colour, to the byte, and none waits twice the mean."""
    given: dict[str, Any] = {"model": str(tiny_checkpoint), "num_threads": 1}
    client = LocalEngineClient(Settings(**given).engines()[0])

    async def run(url: str) -> tuple[list[list[bytes]], list[tuple[list[bytes], list[float]]]]:
        alone = [(await draw(url, index, 2))[0] for index in range(NUM_PAINTERS)]
        crowd = [draw(url, index, NUM_FRAMES) for index in range(NUM_PAINTERS)]
        return alone, list(await asyncio.gather(*crowd))

    with running_server(client, **given) as url:
        alone, together = asyncio.run(run(url))
    assert len({file for files in alone for file in files}) == 2 * NUM_PAINTERS
    for own, (files, _) in zip(alone, together, strict=True):
        assert files == own * (NUM_FRAMES // 2)
    every_ms = [latency_ms for _, latencies_ms in together for latency_ms in latencies_ms]
    worst_ms = max(percentile(latencies_ms, 0.95) for _, latencies_ms in together)
    assert worst_ms <= 2 * statistics.mean(every_ms)
