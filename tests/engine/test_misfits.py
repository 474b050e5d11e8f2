"""A style's LoRA on several checkpoints: where it does not fit, and which of two is taken."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import structlog.testing
from diffusers import LCMScheduler

from models.errors import CheckpointError
from service.engine.builder import load_engine, load_pipelines
from service.settings import EngineSettings, Settings
from tests.support.checkpoints import sdxl_unet, write_sdxl_checkpoint
from tests.support.engine_runs import load
from tests.support.loras import ATTENTION, random_factors, write_lora

STYLES = """
[INK]
title = "Ink"
prompt = "{prompt}, ink"
lora = "ink.safetensors"
"""


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Two checkpoints, `one` and `wide` whose text is wider, and a style made for `one`."""
    shutil.copytree(tiny_checkpoint, tmp_path / "one")
    factors = {"unet": random_factors(load(tiny_checkpoint).unet, ATTENTION, seed=2)}
    write_lora(tmp_path / "ink.safetensors", factors)
    (tmp_path / "styles.toml").write_text(STYLES)
    return tmp_path


def settings_of(folder: Path, *models: Path) -> EngineSettings:
    settings = Settings(
        models=",".join(map(str, models)),
        styles=str(folder / "styles.toml"),
        device="cpu",
        dtype="float32",
    )
    return settings.engines()[0]


def wide(folder: Path) -> Path:
    """Write a latent consistency checkpoint in whose attention the style's LoRA does not fit."""
    path = write_sdxl_checkpoint(folder / "wide")
    sdxl_unet(time_cond_proj_dim=32).save_pretrained(path / "unet")
    LCMScheduler().save_pretrained(path / "scheduler")
    index = (path / "model_index.json").read_text()
    (path / "model_index.json").write_text(index.replace("EulerDiscreteScheduler", "LCMScheduler"))
    return path


def test_a_misfit_is_left_out_where_it_does_not_fit(folder: Path) -> None:
    """Both checkpoints serve; the engine tells and logs which style fits which."""
    settings = settings_of(folder, folder / "one", wide(folder))
    with structlog.testing.capture_logs() as log:
        _, ready = load_engine(settings)
    assert ready.loras == {"one": ["INK"], "wide": []}
    assert ready.misfits == {"one": [], "wide": ["INK"]}
    (told,) = [line for line in log if line["log_level"] == "warning"]
    assert (told["style"], told["checkpoint"]) == ("INK", "wide")
    assert "ink.safetensors" in told["reason"]


def test_a_lora_that_fits_nowhere_stops_the_start(folder: Path) -> None:
    """The operator reads file, line and field, and why it fits none."""
    settings = settings_of(folder, wide(folder))
    sentence = r"styles.toml, line 5: INK: lora: it fits none .*wide: ink.safetensors: .*"
    with pytest.raises(CheckpointError, match=sentence):
        load_pipelines(settings)


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_a_lora_that_is_none_stops_the_start(folder: Path, content: bytes) -> None:
    """It fits no checkpoint either, however many are served."""
    (folder / "ink.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"styles.toml, line 5: INK: lora: .*ink.safetensors"):
        load_pipelines(settings_of(folder, folder / "one"))


def test_a_checkpoints_own_lora_must_fit_it(folder: Path) -> None:
    """That is a fault of the checkpoint, not of a style that was made for another one."""
    path = wide(folder)
    (path / "loras").mkdir()
    shutil.copy(folder / "ink.safetensors", path / "loras" / "ANIME.safetensors")
    with pytest.raises(CheckpointError, match=re.escape("ANIME.safetensors: ")):
        load_pipelines(settings_of(folder, folder / "one", path))


def test_the_lora_that_a_style_names_comes_before_the_checkpoints_own(folder: Path) -> None:
    """Who writes a file of styles is not overruled by what a checkpoint brings along."""
    (folder / "one" / "loras").mkdir()
    factors = {"unet": random_factors(load(folder / "one").unet, ("proj_in",), seed=3)}
    for style in ("INK", "ANIME"):
        write_lora(folder / "one" / "loras" / f"{style}.safetensors", factors)
    (pipeline,) = load_pipelines(settings_of(folder, folder / "one")).values()
    layers = {name: set(lora) for name, lora in pipeline.adapters._loras.items()}
    assert all(layer.endswith(ATTENTION) for layer in layers["INK"])
    assert all(layer.endswith("proj_in") for layer in layers["ANIME"])
