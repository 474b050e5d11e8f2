"""The autoencoder's start."""

from __future__ import annotations

import torch

from models.training.scenes.renderers import render
from models.training.scenes.scene import draw_scene
from models.training.stages.autoencoder import build_autoencoder, psnr, start_as_thumbnail


def test_thumbnail_start() -> None:
    """Before the first step, colours and places come through at over 15 dB."""
    model = build_autoencoder()
    start_as_thumbnail(model)
    x = render([draw_scene(n) for n in range(4)], "NONE", (64, 64)) * 2 - 1
    with torch.no_grad():
        y = model.decode(model.encode(x).latents).sample
    assert psnr(y, x) > 15
