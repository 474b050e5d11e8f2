"""The two LoRAs of the bundled checkpoint, in our engine: what they change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.catalog import find_checkpoint
from models.hub import local_folder
from models.loader import Adapter, CheckpointFiles, load_pipeline
from models.lora_files import own_lora
from models.pipeline import Pipeline
from models.styles import load_styles
from models.training.renderers import DOODLE, render
from models.training.sheet import SHOWN
from service.jobs import Pixels
from tests.engine.runs import make_engine, make_job, picture, run

SIDE = 512
STYLES = ("SKETCH_BW", "FANTASY_ART")
POCKET = local_folder(find_checkpoint("pocket"))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """The bundled checkpoint with its LoRAs, as the service loads it."""
    return load_pipeline(
        CheckpointFiles(POCKET), device="cpu", dtype=torch.float32,
        adapters={style: Adapter(lora_of(style)) for style in STYLES},
    )  # fmt: skip


def lora_of(style: str) -> Path:
    path = own_lora(POCKET, load_styles()[style])
    assert path is not None
    return path


def drawn(style: str) -> Pixels:
    """Return the true picture of the first scene of the contact sheet, or its doodle."""
    shown = render([SHOWN[0][0]], style, (SIDE, SIDE))[0]  # [3, H, W], 0..1
    return (shown.permute(1, 2, 0) * 255).round().byte().numpy()


def refined(pipeline: Pipeline, style: str, *, with_lora: bool) -> Pixels:
    """Refine the doodle in a style; without its LoRA the prompt alone says which."""
    prompt = load_styles()[style].apply(SHOWN[0][1])
    job = make_job(
        prompt=prompt, height=SIDE, width=SIDE, strength=0.6, guidance=6.0, image=drawn(DOODLE)
    )
    params = dataclasses.replace(job.params, style=style if with_lora else "NONE")
    return picture(run(make_engine(pipeline), [dataclasses.replace(job, params=params)])["job"])


def saturation(pixels: Pixels) -> float:
    """Return the mean of (max - min) / max over the pixels."""
    high, low = pixels.max(2).astype(float), pixels.min(2)
    return float(((high - low) / np.maximum(high, 1)).mean())


def distance(one: Pixels, other: Pixels) -> float:
    """Return the mean absolute difference in 8-bit levels."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("style", STYLES)
def test_a_lora_changes_the_picture_towards_its_style(pipeline: Pipeline, style: str) -> None:
    """Over 10 levels on average, and nearer to the scene as its style's renderer draws it."""
    on = refined(pipeline, style, with_lora=True)
    off = refined(pipeline, style, with_lora=False)
    assert distance(on, off) > 10
    assert distance(on, drawn(style)) < distance(off, drawn(style))


def test_ink_takes_the_colour_away(pipeline: Pipeline) -> None:
    """With its LoRA a sketch in ink has a fifth of the doodle's colour at most, and less than off.

    Off it is nearly ink already: the prompt says so.
    """
    on, off = (refined(pipeline, "SKETCH_BW", with_lora=has) for has in (True, False))
    assert saturation(on) < saturation(drawn(DOODLE)) / 5
    assert saturation(on) < saturation(off)
