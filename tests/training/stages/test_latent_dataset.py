"""The data set of encoded scenes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.training.loop.fit import Budget
from models.training.recipe import Subset
from models.training.stages.autoencoder import build_autoencoder
from models.training.stages.latent_dataset import (
    LatentDataset,
    LatentMixture,
    build_latent_dataset,
    make_chunk,
)
from tests.training.batches import CPU

SHAPE = (64, 80)


def test_dataset_is_reproducible(tmp_path: Path) -> None:
    """A chunk made twice is the same, and `refresh` loads new chunks."""
    model = build_autoencoder().eval()
    for work in (tmp_path / "a", tmp_path / "b"):
        build_latent_dataset(work, model, Subset(SHAPE, 1, 2), CPU, Budget(1))
    one, other = (LatentDataset(tmp_path / name, SHAPE, CPU) for name in "ab")
    drawn, same = (dataset.draw(6, torch.Generator().manual_seed(0)) for dataset in (one, other))
    for column, twin in zip(drawn, same, strict=True):
        torch.testing.assert_close(column, twin)
    build_latent_dataset(tmp_path / "a", model, Subset(SHAPE, 2, 2), CPU, Budget(1))
    one.refresh()
    assert len(one) == 12


def test_columns(tmp_path: Path) -> None:
    """Each scene of a chunk has three styles; a batch has the documented shapes."""
    model = build_autoencoder().eval()
    chunk = make_chunk(model, SHAPE, 0, scenes=2, device=CPU)
    for name in ("doodles", "thing_mask", "posed"):
        torch.testing.assert_close(chunk[name][:2], chunk[name][2:4])
    build_latent_dataset(tmp_path, model, Subset(SHAPE, 1, 2), CPU, Budget(1))
    batch = LatentDataset(tmp_path, SHAPE, CPU, for_trunk=True).draw(5, torch.Generator())
    assert batch.for_trunk
    assert batch.latents.shape == batch.doodles.shape == (5, 4, 8, 10)
    assert batch.thing_mask.shape == (5, 1, 8, 10)
    assert batch.tokens.shape == (5, 77)
    assert 0 < batch.thing_mask.max() <= 1


def test_mixture_without_chunks(tmp_path: Path) -> None:
    """A mixture of which no chunk exists ends in an error that names the stage to run."""
    with pytest.raises(SystemExit, match="--stage latent-dataset first"):
        LatentMixture(tmp_path, [Subset(SHAPE, 1, 2)], CPU, 4)
