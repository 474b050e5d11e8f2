"""The lanes that are measured side by side: diffusers as people run it, and this project's engine.

All make the same picture of the same job: same checkpoint, dtype, device, seed, steps, strength and
guidance, pixels in and pixels out, no HTTP and no codec.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import LatentConsistencyModelImg2ImgPipeline
from PIL import Image

from models.device import pick_dtype
from service.bench.pictures import photograph
from service.engine.loading import load_engine
from service.jobs import Finished, GenerationParams, Job, Pixels
from service.settings import EngineSettings

_PROMPT = "a red house in a meadow"


@dataclass(frozen=True)
class Place:
    """Where and in what the lanes run."""

    checkpoint: Path
    device: str = "cpu"
    dtype_name: str = "float32"
    cache: Path = Path(".bench-cache")

    @property
    def dtype(self) -> torch.dtype:
        return pick_dtype(self.dtype_name, self.device)

    def synchronise(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


class Lane(Protocol):
    """A way to make pictures. `run` makes those of all jobs and returns the seconds of each."""

    name: str

    def run(self, jobs: Sequence[Job]) -> list[float]: ...

    def picture(self, job: Job) -> Pixels: ...


def make_job(number: int, *, size: int = 512, steps: int = 4, strength: float = 0.6) -> Job:
    params = GenerationParams(
        prompt=_PROMPT,
        height=size,
        width=size,
        num_inference_steps=steps,
        strength=strength,
        guidance_scale=6.0,
        seeds=(number,),
    )
    return Job(f"job-{number}", params, photograph(size, size), timeout_s=float("inf"))


def mixed_jobs(count: int, size: int = 512) -> list[Job]:
    """Jobs that differ in steps (4 to 16), strength, guidance and prompt, the same every time."""
    lot = random.Random(0)
    jobs = []
    for number in range(count):
        job = make_job(number, size=size, steps=lot.randint(4, 16), strength=lot.choice((0.5, 1.0)))
        params = replace(
            job.params, guidance_scale=lot.uniform(1, 12), prompt=f"{_PROMPT} {number % 5}"
        )
        jobs.append(replace(job, params=params))
    return jobs


class DiffusersLane:
    """`LatentConsistencyModelImg2ImgPipeline`, a request at a time, as behind a lock."""

    def __init__(self, place: Place, *, is_tuned: bool = False) -> None:
        """`is_tuned` is diffusers' own advice: channels-last, UNet and autoencoder compiled."""
        self.name = "diffusers, channels-last and compiled" if is_tuned else "diffusers, eager"
        self._place = place
        self._pipeline: Any = LatentConsistencyModelImg2ImgPipeline.from_pretrained(
            place.checkpoint, dtype=place.dtype, local_files_only=True
        ).to(place.device)
        self._pipeline.set_progress_bar_config(disable=True)
        if is_tuned:
            self._tune()

    def _tune(self) -> None:
        pipeline, compiled = self._pipeline, partial(torch.compile, mode="max-autotune")
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
        pipeline.unet = compiled(pipeline.unet, fullgraph=True)
        pipeline.vae.encode = compiled(pipeline.vae.encode)
        pipeline.vae.decode = compiled(pipeline.vae.decode)

    def picture(self, job: Job) -> Pixels:
        params = job.params
        output = self._pipeline(
            params.prompt,
            image=Image.fromarray(job.image),
            num_inference_steps=params.num_inference_steps,
            strength=params.strength,
            guidance_scale=params.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(params.seeds[0]),
        )
        return np.asarray(output.images[0])

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """Make one after another; each job has waited for those before it."""
        started, seconds = time.perf_counter(), []
        for job in jobs:
            self.picture(job)
            self._place.synchronise()
            seconds.append(time.perf_counter() - started)
        return seconds


class EngineLane:
    """Our engine, all jobs at once: step-level batching where `max_batch` allows."""

    def __init__(self, place: Place, *, max_batch: int, compile_mode: str = "off") -> None:
        self.name = f"ours, up to {max_batch} rows" + (
            ""
            if compile_mode == "off"
            else ", compiled" + (" and captured" * (place.device != "cpu"))
        )
        settings = EngineSettings(
            model=str(place.checkpoint),
            device=place.device,
            dtype=place.dtype_name,
            max_batch=max_batch,
            max_waiting=1024,
            compile=compile_mode,
            hot_shapes=((512, 512),),
            cache_dir=str(place.cache),
        )
        self._engine, _ = load_engine(settings)
        self.num_unet_calls = 0

    def picture(self, job: Job) -> Pixels:
        self._engine.add(job)
        while True:
            for outcome in self._engine.step():
                picture: Pixels = _finished(outcome).images[0]
                return picture

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """Add all and step until all are done."""
        before = self._engine.stats.num_unet_calls
        started, seconds = time.perf_counter(), []
        for job in jobs:
            self._engine.add(job)
        while self._engine.has_work():
            for outcome in self._engine.step():
                _finished(outcome)
                seconds.append(time.perf_counter() - started)
        self.num_unet_calls = self._engine.stats.num_unet_calls - before
        return seconds


def _finished(outcome: object) -> Finished:
    if not isinstance(outcome, Finished):
        raise RuntimeError(f"a job did not end in a picture: {outcome}")
    return outcome
