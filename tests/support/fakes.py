"""An engine client without an engine: answers at once, or when a test lets it."""

from __future__ import annotations

import asyncio
import math
from collections import deque

import numpy as np

from service.engine_client.base import EngineHealth, OnProgress
from service.engine_client.supervisor import State
from service.errors import RefineError
from service.protocol.jobs import Finished, GenerationParams, Job, Pixels, StageTimes
from service.protocol.messages import Ready

READY = Ready(device="cpu", dtype="float32", model="pocket", max_batch=1)


class FakeEngineClient:
    """Returns the picture's negative. Keeps what it was asked and what was aborted."""

    def __init__(self) -> None:
        self.health = EngineHealth("serving", "serving", READY)
        self.asked: list[tuple[GenerationParams, Pixels, float]] = []
        self.masks: list[Pixels | None] = []
        self.callers: list[str] = []
        self.num_aborted = 0
        self.refusals: deque[RefineError] = deque()
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()  # for tests that let it answer from their thread

    async def stop(self) -> None:
        """There is nothing to stop."""

    async def wait_until(self, *states: State) -> EngineHealth:
        if self.health.state not in states:
            await asyncio.Event().wait()  # its state never changes
        return self.health

    def check_accepts(self, caller: str = "", timeout_s: float = math.inf) -> None:
        """All are accepted."""

    async def generate(
        self,
        params: GenerationParams,
        image: Pixels,
        *,
        timeout_s: float,
        mask: Pixels | None = None,
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> Finished:
        assert on_progress is None
        self.asked.append((params, image, timeout_s))
        self.masks.append(mask)
        self.callers.append(caller)
        if self.refusals:
            raise self.refusals.popleft()
        try:
            await self.is_open.wait()
        except asyncio.CancelledError:
            self.num_aborted += 1
            raise
        origins = Job("job", params, image, timeout_s).row_origins()
        parts = [image[y : y + params.height, x : x + params.width] for y, x in origins]
        return Finished(
            "job",
            255 - np.stack(parts),
            num_steps_run=params.num_inference_steps,
            num_tokens_dropped=max(0, len(params.prompt) - 1000),
            times=StageTimes(queue_ms=1, text_ms=2, encode_ms=3, denoise_ms=4, vae_ms=5),
        )
