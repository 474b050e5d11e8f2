"""The targets of trajectory and consistency distillation, compared with diffusers' DDIM."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from models.training.networks.architecture import build_scheduler
from models.training.networks.noise import embed_guidance
from models.training.stages.distillation import NoisyBatch
from models.training.stages.trajectory_distillation import (
    TRUE_MAX_TIMESTEP,
    ConsistencyDistillation,
    TrajectoryDistillation,
)
from tests.training.batches import random_batch
from tests.training.stages.test_distillation import make_distillation

MODULE = "models.training.stages.trajectory_distillation"
BATCH = random_batch()


@pytest.fixture(name="trajectory")
def make_trajectory() -> TrajectoryDistillation:
    distillation = make_distillation(TrajectoryDistillation)
    assert isinstance(distillation, TrajectoryDistillation)
    return distillation


@pytest.fixture(name="consistency")
def make_consistency() -> ConsistencyDistillation:
    """Return a loss whose average differs from its guide."""
    distillation = make_distillation(ConsistencyDistillation)
    assert isinstance(distillation, ConsistencyDistillation)
    torch.nn.init.normal_(distillation.ema.conv_out.weight, std=0.1)
    return distillation


def make_noisy(
    distillation: TrajectoryDistillation, timesteps: tuple[int, int], w: tuple[float, float]
) -> NoisyBatch:
    text = distillation.teacher.encode_text(BATCH.tokens)
    x_t = torch.randn(2, 4, 8, 8)
    return NoisyBatch(x_t, torch.tensor(timesteps), text, torch.tensor(w))


def make_ddim(steps: int) -> DDIMScheduler:
    scheduler = DDIMScheduler.from_config(build_scheduler().config, clip_sample=False)
    scheduler.set_timesteps(steps)  # diffusers derives the stride from it
    return scheduler


def test_trajectory_ends(trajectory: TrajectoryDistillation) -> None:
    """Rows at different timesteps end where diffusers' DDIM brings each of them."""
    noisy = make_noisy(trajectory, (299, 499), (0.0, 6.0))
    scheduler = make_ddim(10)
    with torch.no_grad():
        ends = trajectory.trajectory_ends(noisy, BATCH)
        for row in range(2):
            x, t, text, w = noisy.rows(slice(row, row + 1))
            for timestep in range(int(t), 0, -100):
                step = torch.tensor(timestep)
                v = trajectory.guide(x, step, text, timestep_cond=embed_guidance(w)).sample
                x = scheduler.step(v, timestep, x).prev_sample
            torch.testing.assert_close(ends[row : row + 1], x, rtol=1e-3, atol=1e-2)


def test_late_rows_have_true_targets(trajectory: TrajectoryDistillation) -> None:
    """Up to TRUE_MAX_TIMESTEP the target is the true image for any x_t; above it is not."""
    timesteps = (TRUE_MAX_TIMESTEP, TRUE_MAX_TIMESTEP + 100)
    targets = trajectory.targets(make_noisy(trajectory, timesteps, (0.0, 0.0)), BATCH)
    assert torch.equal(targets[0], BATCH.latents[0])
    assert not torch.allclose(targets[1], BATCH.latents[1], atol=0.1)


def test_own_predictions_come_from_doodles(
    monkeypatch: pytest.MonkeyPatch, trajectory: TrajectoryDistillation
) -> None:
    """A late row's own prediction is made from the doodle, and never from the true image."""
    late = torch.full((2,), 19)
    monkeypatch.setattr("models.training.stages.distillation.sample_grid", lambda _: late)
    bright = BATCH._replace(latents=torch.full((2, 4, 8, 8), 50.0))
    monkeypatch.setattr(f"{MODULE}.OWN_SHARE", 1.0)
    assert trajectory.sample_noisy(bright).x_t.abs().max() < 20
    monkeypatch.setattr(f"{MODULE}.OWN_SHARE", 0.0)
    assert trajectory.sample_noisy(bright).x_t.min() > 40


def test_next_predictions(consistency: ConsistencyDistillation) -> None:
    """The target is the average's prediction at t - 20, after one step of diffusers' DDIM."""
    noisy = make_noisy(consistency, (519, 519), (0.0, 6.0))
    x_t, t, text, w = noisy
    with torch.no_grad():
        v = consistency.guide(x_t, t, text, timestep_cond=embed_guidance(w)).sample
        stepped = make_ddim(50).step(v, 519, x_t).prev_sample
        expected = consistency.predict(
            consistency.ema, noisy._replace(x_t=stepped, timesteps=t - 20), BATCH
        )
        targets = consistency.next_predictions(noisy, BATCH)
    torch.testing.assert_close(targets, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("share", "method"), [(0.0, "next_predictions"), (1.0, "trajectory_ends")])
def test_trajectory_share(
    monkeypatch: pytest.MonkeyPatch,
    consistency: ConsistencyDistillation,
    share: float,
    method: str,
) -> None:
    """A share of the noisy rows learns the ends of trajectories, the others consistency."""
    monkeypatch.setattr(f"{MODULE}.TRAJECTORY_SHARE", share)
    noisy = make_noisy(consistency, (519, 999), (0.0, 0.0))
    with torch.no_grad():
        targets = consistency.targets(noisy, BATCH)
        torch.testing.assert_close(targets, getattr(consistency, method)(noisy, BATCH))
