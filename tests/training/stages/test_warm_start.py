"""The warm start from the shipped folder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from models.training.loop.checkpoint import load_state, save_state
from models.training.networks.noise import embed_guidance
from models.training.networks.tokenizer import tokenize
from models.training.stages.autoencoder import load_autoencoder
from models.training.stages.teacher import load_teacher
from models.training.stages.warm_start import warm_start
from models.training.train import POCKET


def test_teacher_from_pocket(tmp_path: Path) -> None:
    """The warm-started teacher predicts what the shipped student predicts at guidance 1."""
    warm_start(POCKET, tmp_path)
    teacher = load_teacher(tmp_path)
    student = UNet2DConditionModel.from_pretrained(POCKET / "unet", dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 4, 16, 16, generator=rng), torch.tensor([19, 999])
    text = teacher.encode_text(torch.tensor(tokenize(["a red house", "the sea"])))
    unguided = embed_guidance(torch.zeros(2))
    with torch.no_grad():
        expected = student(x, t, text, timestep_cond=unguided).sample
        torch.testing.assert_close(teacher.unet(x, t, text).sample, expected, atol=2e-2, rtol=2e-2)
    assert load_autoencoder(tmp_path).config.latent_channels == 4


def test_existing_states_stay(tmp_path: Path) -> None:
    """A work folder with a state of an earlier run is not changed."""
    save_state(tmp_path / "autoencoder.safetensors", {"a": torch.zeros(1)}, seen=7)
    warm_start(POCKET, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["autoencoder.safetensors"]
    assert load_state(tmp_path / "autoencoder.safetensors")[1]["seen"] == "7"
