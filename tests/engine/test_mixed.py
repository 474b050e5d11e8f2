"""Everything at once: each of the four routes' jobs, styles and LoRAs, two checkpoints."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.pipeline import Pipeline
from models.styles.presets import load_styles
from service.engine.builder import load_pipelines
from service.engine.engine import Engine
from service.engine.scheduler import Scheduler
from service.protocol.jobs import Finished, Job
from service.settings import Settings
from tests.support.engine_runs import SIDE, levels_apart, load, make_job, noise_image, run
from tests.support.loras import ATTENTION, EVERYWHERE, random_factors, write_lora

STYLES = """
[INK]
title = "Ink"
prompt = "{prompt}, ink"
lora = "ink.safetensors"
lora_weight = 0.8
"""


@pytest.fixture(scope="module")
def served(
    tiny_checkpoint: Path, kl_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Pipeline]:
    """Two checkpoints: one has a LoRA of its own for a style, a file of styles has another."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny_checkpoint, folder / "first")
    unet = load(tiny_checkpoint).unet
    own = {"unet": random_factors(unet, EVERYWHERE, seed=1)}
    write_lora(folder / "first" / "loras" / "ANIME.safetensors", own)
    write_lora(folder / "ink.safetensors", {"unet": random_factors(unet, ATTENTION, seed=2)})
    (folder / "styles.toml").write_text(STYLES)
    settings = Settings(
        models=f"{folder / 'first'},{kl_checkpoint}",
        styles=str(folder / "styles.toml"),
        device="cpu",
        dtype="float32",
        max_batch=4,
    )
    return load_pipelines(settings.engines()[0])


def jobs(second: str) -> list[Job]:
    def styled(job: Job, style: str, **params: Any) -> Job:
        return dataclasses.replace(
            job, params=dataclasses.replace(job.params, style=style, **params)
        )

    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[30:90, 20:100] = 255
    tiles = make_job("upscale", seeds=(5,) * 3, image=noise_image(2 * SIDE, 2 * SIDE), strength=0.3)
    return [
        styled(make_job("refine", seeds=(1, 2)), "ANIME"),
        styled(make_job("refine too", seeds=(3,), steps=6), "INK"),
        styled(make_job("live", seeds=(4,)), "NONE", autoencoder="tiny"),
        styled(make_job("inpaint", mask=mask, seeds=(6,)), "INK"),
        styled(tiles, "ANIME", origins=((0, 0), (64, SIDE), (SIDE, 32))),
        styled(make_job("another", seeds=(7,)), "INK", model=second),
    ]


def engine_of(served: dict[str, Pipeline]) -> Engine:
    return Engine(served, Scheduler(max_batch=4, max_waiting=64))


def test_all_routes_styles_and_loras_share_batches(served: dict[str, Pipeline]) -> None:
    """Four kinds of job, three styles of which two have LoRAs: each within 1 level of alone."""
    every = jobs(list(served)[1])
    engine = engine_of(served)
    together = run(engine, every)
    assert engine.stats.max_batch_seen == 4
    for job in every:
        alone, mixed = run(engine_of(served), [job])[job.id], together[job.id]
        assert isinstance(alone, Finished)
        assert isinstance(mixed, Finished)
        assert levels_apart(mixed.images, alone.images) <= 1, job.id


def test_a_style_shows_by_its_lora(served: dict[str, Pipeline]) -> None:
    """With equal words, the checkpoint's own LoRA and that of the styles' file change a picture."""
    pictures = {}
    for style in ("NONE", "ANIME", "INK", "VIBRANT"):
        job = make_job(seeds=(1,))
        job = dataclasses.replace(job, params=dataclasses.replace(job.params, style=style))
        (outcome,) = run(engine_of(served), [job]).values()
        assert isinstance(outcome, Finished)
        pictures[style] = outcome.images
    assert levels_apart(pictures["NONE"], pictures["VIBRANT"]) == 0
    assert levels_apart(pictures["NONE"], pictures["ANIME"]) > 2
    assert levels_apart(pictures["NONE"], pictures["INK"]) > 2
    assert "INK" not in load_styles()
