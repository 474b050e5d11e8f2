"""Our batching lane without one of its ideas, and with pictures encoded as files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.lanes.engine import EngineLane
from service.front.images.codec import Format, encode_image
from service.protocol.jobs import Finished, Job, Pixels

_CODEC_THREADS = 4


class RequestBatchedLane:
    """Request-level batching: only equal steps, strength, guidance and size share UNet calls.

    Requests of a batch start and end together; those of another kind wait.
    """

    def __init__(self, lane: EngineLane, name: str) -> None:
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._lane = lane

    def picture(self, job: Job) -> Pixels:
        return self._lane.picture(job)

    def run(self, jobs: Sequence[Job]) -> list[float]:
        started, seconds = time.perf_counter(), []
        self.unet_calls = self.unet_rows = 0
        for batch in equal_batches(jobs):
            seconds += [time.perf_counter() - started for _ in self._lane.finished(batch)]
            self.unet_calls += self._lane.unet_calls
            self.unet_rows += self._lane.unet_rows
        return seconds


def equal_batches(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group jobs by what a request-level batch must have in common, in order of arrival."""
    groups: dict[tuple[float, ...], list[Job]] = {}
    for job in jobs:
        params = job.params
        key = (params.num_inference_steps, params.strength, params.guidance_scale, params.height,
               params.width)  # fmt: skip
        groups.setdefault(key, []).append(job)
    return list(groups.values())


class EncodedLane:
    """Pictures as files, encoded by a thread pool beside the engine, as in the front."""

    def __init__(self, lane: EngineLane, name: str, output: Format) -> None:
        self.name = name
        self.unet_calls = self.unet_rows = 0
        self._lane = lane
        self._output: Format = output
        self._pool = ThreadPoolExecutor(_CODEC_THREADS)

    def picture(self, job: Job) -> Pixels:
        return self._lane.picture(job)

    def run(self, jobs: Sequence[Job]) -> list[float]:
        started = time.perf_counter()

        def encode(outcome: Finished) -> float:
            encode_image(outcome.images[0], format=self._output)
            return time.perf_counter() - started

        encoded = [self._pool.submit(encode, outcome) for outcome in self._lane.finished(jobs)]
        seconds = [future.result() for future in encoded]
        self.unet_calls, self.unet_rows = self._lane.unet_calls, self._lane.unet_rows
        return seconds
