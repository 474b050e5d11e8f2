"""Short ways to run an engine in a test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from models.loader import CheckpointFiles, load_pipeline
from models.pipeline import Pipeline
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.protocol.jobs import Failed, Finished, GenerationParams, Job, Pixels, Progress

SIDE = 128
"""Pixels of a test's picture where the size does not matter: the engine knows no sizes."""


def load(folder: Path) -> Pipeline:
    """Load a checkpoint as the oracle does: fp32 on the CPU."""
    return load_pipeline(CheckpointFiles(folder), device="cpu", dtype=torch.float32)


def make_engine(pipeline: Pipeline, *, max_batch: int = 1) -> Engine:
    return Engine({"": pipeline}, Scheduler(max_batch=max_batch, max_waiting=64))


def noise_image(height: int = SIDE, width: int = SIDE, seed: int = 0) -> Pixels:
    """A smooth random picture, [H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((height // 8, width // 8, 1), np.uint8)))


def make_job(
    job_id: str = "job",
    *,
    prompt: str = "a red heart",
    height: int = SIDE,
    width: int = SIDE,
    steps: int = 4,
    strength: float = 0.5,
    guidance: float = 8.0,
    seeds: tuple[int, ...] = (7,),
    image: Pixels | None = None,
    timeout_s: float = 1000.0,
    reports_progress: bool = False,
    mask: Pixels | None = None,
    caller: str = "",
) -> Job:
    params = GenerationParams(prompt, height, width, steps, strength, guidance, seeds)
    if image is None:
        image = noise_image(height, width, seed=seeds[0] % 1000)
    return Job(job_id, params, image, timeout_s, reports_progress, mask, caller)


def run(engine: Engine, jobs: Iterable[Job]) -> dict[str, Finished | Failed]:
    """Add jobs and step until all is done; return what became of each."""
    for job in jobs:
        engine.add(job)
    outcomes: dict[str, Finished | Failed] = {}
    while engine.has_work():
        for outcome in engine.step():
            if not isinstance(outcome, Progress):
                outcomes[outcome.job_id] = outcome
    return outcomes


def picture(outcome: Finished | Failed) -> Pixels:
    """Return the only picture of a finished job, [H, W, 3]."""
    assert isinstance(outcome, Finished)
    assert len(outcome.images) == 1
    image: Pixels = outcome.images[0]
    return image


def levels_apart(one: Pixels, other: Pixels) -> int:
    """Return the largest difference of two pictures in 8-bit levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())
