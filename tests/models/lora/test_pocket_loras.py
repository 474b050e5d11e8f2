"""The two LoRAs of the bundled checkpoint, in our engine: what they change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from models.checkpoints.catalog import find_checkpoint
from models.checkpoints.hub import local_folder
from models.loader import Adapter, CheckpointFiles, load_pipeline
from models.lora.files import own_lora
from models.pipeline import Pipeline
from models.styles.presets import load_styles
from models.training.evaluation.contact_sheet import SHEET_SCENES
from models.training.scenes.renderers import DOODLE, render
from service.protocol.jobs import Pixels
from tests.support.engine_runs import make_engine, make_job, picture, run

SIDE = 512
STYLES = ("SKETCH_BW", "FANTASY_ART")
POCKET = local_folder(find_checkpoint("pocket"))


class Pair(NamedTuple):
    style: str
    on: list[Pixels]
    off: list[Pixels]


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


def drawn(style: str) -> list[Pixels]:
    """Return the true pictures of the contact sheet's scenes, or their doodles."""
    shown = render([scene for scene, _ in SHEET_SCENES], style, (SIDE, SIDE))  # [N, 3, H, W], 0..1
    return list((shown.permute(0, 2, 3, 1) * 255).round().byte().numpy())


def refined(pipeline: Pipeline, style: str, *, with_lora: bool) -> list[Pixels]:
    """Refine the doodles in a style; without its LoRA the prompt alone says which."""
    engine = make_engine(pipeline)
    pictures = []
    for (_, words), doodle in zip(SHEET_SCENES, drawn(DOODLE), strict=True):
        prompt = load_styles()[style].apply(words)
        job = make_job(
            prompt=prompt, height=SIDE, width=SIDE, strength=0.6, guidance=6.0, image=doodle
        )
        params = dataclasses.replace(job.params, style=style if with_lora else "NONE")
        pictures.append(picture(run(engine, [dataclasses.replace(job, params=params)])["job"]))
    return pictures


@pytest.fixture(scope="module", params=STYLES)
def pair(request: pytest.FixtureRequest, pipeline: Pipeline) -> Pair:
    """A style, and the pictures in it with its LoRA and without."""
    style: str = request.param
    on, off = (refined(pipeline, style, with_lora=has) for has in (True, False))
    return Pair(style, on, off)


def saturation(pictures: list[Pixels]) -> float:
    """Return the mean of (max - min) / max over all pixels."""
    pixels = np.stack(pictures)
    high, low = pixels.max(-1).astype(float), pixels.min(-1)
    return float(((high - low) / np.maximum(high, 1)).mean())


def distance(some: list[Pixels], others: list[Pixels]) -> float:
    """Return the mean absolute difference in 8-bit levels."""
    return float(np.abs(np.stack(some).astype(int) - np.stack(others).astype(int)).mean())


def test_a_lora_changes_pictures_towards_its_style(pair: Pair) -> None:
    """Over 10 levels on average, and nearer to the scenes as the style's renderer draws them."""
    assert distance(pair.on, pair.off) > 10
    true = drawn(pair.style)
    assert distance(pair.on, true) < distance(pair.off, true)


def test_ink_takes_the_colour_away(pair: Pair) -> None:
    """With its LoRA a sketch in ink has a fifth of the doodle's colour at most, and less than off.

    Off it is nearly ink already: the prompt says so. A fantasy has not lost its colours.
    """
    fifth = saturation(drawn(DOODLE)) / 5
    if pair.style == "SKETCH_BW":
        assert saturation(pair.on) < min(fifth, saturation(pair.off))
    else:
        assert saturation(pair.on) > fifth
