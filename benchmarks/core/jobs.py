"""The jobs that lanes run: one, mixed ones of many users, or the frames of a stream."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from service.loadgen.images import photograph
from service.protocol.jobs import GenerationParams, Job

_PROMPT = "a red house in a meadow"

# Few values of each, as real users choose: some requests have equal steps and guidance.
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


def make_job(
    number: int, *, size: int = 512, steps: int = 4, strength: float = 0.6, guidance: float = 6.0,
    prompt: str = _PROMPT,
) -> Job:  # fmt: skip
    """Return a job of `size` x `size` pixels; `number` is its seed."""
    params = GenerationParams(
        prompt=prompt,
        height=size,
        width=size,
        num_inference_steps=steps,
        strength=strength,
        guidance_scale=guidance,
        seeds=(number,),
    )
    return Job(f"job-{number}", params, photograph(size, size), timeout_s=float("inf"))


def mixed_jobs(count: int, size: int = 512) -> list[Job]:
    """Return jobs that differ in steps (4 to 16), strength, guidance, prompt and seed."""
    rng = random.Random(0)
    return [
        make_job(
            number,
            size=size,
            steps=rng.choice(_MIXED_STEPS),
            strength=rng.choice(_MIXED_STRENGTHS),
            guidance=rng.choice(_MIXED_GUIDANCES),
            prompt=f"{_PROMPT} {number % 5}",
        )
        for number in range(count)
    ]


def varied_jobs(count: int, size: int = 512) -> list[Job]:
    """Return short jobs for comparing quality; each has another prompt, strength or seed."""
    return [
        make_job(
            10 + number,
            size=size,
            steps=4 + 2 * (number % 2),
            strength=_VARIED_STRENGTHS[number % len(_VARIED_STRENGTHS)],
            guidance=_MIXED_GUIDANCES[number // 2 % 2],
            prompt=_VARIED_PROMPTS[number % len(_VARIED_PROMPTS)],
        )
        for number in range(count)
    ]


def stream_jobs(count: int, size: int = 512, steps: int = 4) -> list[Job]:
    """Return frames of one user: one prompt and seed, pictures that move by four pixels."""
    first = make_job(1, size=size, steps=steps)
    return [
        replace(
            first,
            id=f"frame-{number}",
            image=np.ascontiguousarray(np.roll(first.image, 4 * number, axis=1)),
        )
        for number in range(count)
    ]
