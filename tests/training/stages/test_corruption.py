"""The latents under the noise, by timestep."""

from __future__ import annotations

import pytest
import torch

from models.training.stages.corruption import (
    WARP,
    corrupt,
    low_pass,
    max_timesteps,
    sample_grid,
    warp,
)


def test_doodles_and_other_scenes() -> None:
    """Doodles lie under much noise, up to half of the rows; other posed scenes under the most."""
    latents = torch.arange(4000.0).view(-1, 1, 1, 1)
    shares = ((100, 0, 0), (550, 0.5, 0), (930, 0.5, 0.5), (999, 0.5, 0.8))
    for t, doodle_share, other_share in shares:
        for is_posed in (True, False):
            posed, steps = torch.full((4000,), is_posed), torch.full((4000,), t)
            inputs = corrupt(latents, -latents, posed, steps).flatten()
            assert (inputs < 0).float().mean().item() == pytest.approx(doodle_share, abs=0.05)
            others = (inputs.abs() != latents.flatten()).float().mean().item()
            assert others == pytest.approx(other_share * is_posed, abs=0.05)


def test_low_pass() -> None:
    """It keeps the means of large squares and no details; a share of rows has it, up to 0.3."""
    torch.manual_seed(0)
    latents = torch.randn(1000, 4, 16, 16)
    blurred = low_pass(latents)
    torch.testing.assert_close(blurred.mean((2, 3)), latents.mean((2, 3)), atol=0.1, rtol=0)
    assert blurred.std() < latents.std() / 3
    assert low_pass(torch.randn(1, 4, 64, 128)).shape == (1, 4, 64, 128)
    for t, share in ((399, 0), (500, 0.25), (760, 0.3)):
        loose = torch.zeros(1000, dtype=torch.bool)
        inputs = corrupt(latents, latents, loose, torch.full((1000,), t))
        changed = (inputs != latents).flatten(1).any(1).float().mean().item()
        assert changed == pytest.approx(share, abs=0.05)


def test_warp() -> None:
    """Points move by a few latents, neighbours together, with an amplitude for each row."""
    torch.manual_seed(0)
    ramps = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(128.0), indexing="ij"))
    warped = warp(ramps.repeat(16, 2, 1, 1))
    assert warped.shape == (16, 4, 64, 128)
    moves = (warped[:, :2] - ramps)[:, :, 16:-16, 16:-16]
    assert 0.5 < moves.std() < WARP
    assert moves.diff(dim=3).abs().mean() < moves.abs().mean() / 2
    amplitudes = moves.flatten(1).std(1)
    assert amplitudes.min() < amplitudes.max() / 4


def test_grid() -> None:
    """Every timestep of the distilled grid comes up to the largest, which comes most often."""
    torch.manual_seed(0)
    for largest, size in ((999, 50), (899, 45), (299, 15)):
        steps = sample_grid(torch.full((20_000,), largest))
        drawn, counts = torch.unique(steps, return_counts=True)
        assert drawn.tolist() == list(range(19, largest + 1, 20))
        assert len(drawn) == size
        assert counts[-1] == counts.max()


def test_loose_scenes_end_sooner() -> None:
    """Scenes that are not posed are not learned from the end of the schedule."""
    assert max_timesteps(torch.tensor([True, False])).tolist() == [999, 899]
