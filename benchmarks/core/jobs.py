"""The jobs that lanes are given: one, a mixed crowd of them, or the frames of a stream."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from service.bench.pictures import photograph
from service.jobs import GenerationParams, Job, Pixels

_PROMPT = "a red house in a meadow"
_NO_DEADLINE_S = float("inf")

# Few values of each, as people ask: rows with equal steps and guidance are there to be found.
_MIXED_STEPS = (4, 8, 12, 16)
_MIXED_STRENGTHS = (0.5, 0.7, 1.0)
_MIXED_GUIDANCES = (4.0, 8.0)

_VARIED_STRENGTHS = (0.3, 0.6, 1.0)
_VARIED_PROMPTS = (
    "a red house in a meadow",
    "a boat at sea under a yellow moon",
    "two green trees on a hill",
    "a white cloud",
)


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
    return Job(f"job-{number}", params, photograph(size, size), timeout_s=_NO_DEADLINE_S)


def mixed_jobs(count: int, size: int = 512) -> list[Job]:
    """Jobs that differ in steps (4 to 16), strength, guidance, prompt and seed; always the same."""
    lot = random.Random(0)
    jobs = []
    for number in range(count):
        job = make_job(
            number,
            size=size,
            steps=lot.choice(_MIXED_STEPS),
            strength=lot.choice(_MIXED_STRENGTHS),
        )
        params = replace(
            job.params,
            guidance_scale=lot.choice(_MIXED_GUIDANCES),
            prompt=f"{_PROMPT} {number % 5}",
        )
        jobs.append(replace(job, params=params))
    return jobs


def varied_jobs(count: int, size: int = 512) -> list[Job]:
    """Jobs that hold quality: short ones, each with a prompt, strength and seed of its own."""
    jobs = []
    for number in range(count):
        strength = _VARIED_STRENGTHS[number % len(_VARIED_STRENGTHS)]
        job = make_job(10 + number, size=size, steps=4 + 2 * (number % 2), strength=strength)
        prompt = _VARIED_PROMPTS[number % len(_VARIED_PROMPTS)]
        guidance = _MIXED_GUIDANCES[number // 2 % 2]
        jobs.append(
            replace(job, params=replace(job.params, prompt=prompt, guidance_scale=guidance))
        )
    return jobs


def stream_jobs(count: int, size: int = 512, steps: int = 4) -> list[Job]:
    """Frames of one user: one prompt, one seed, pictures that move by a few pixels."""
    first = make_job(1, size=size, steps=steps)
    return [
        replace(first, id=f"frame-{number}", image=_moved(first.image, 4 * number))
        for number in range(count)
    ]


def _moved(image: Pixels, pixels: int) -> Pixels:
    return np.ascontiguousarray(np.roll(image, pixels, axis=1))


def tiny_of(job: Job) -> Job:
    """Return the same job for the `AutoencoderTiny` that may stand beside a checkpoint's own."""
    return replace(job, params=replace(job.params, autoencoder="tiny"))
