"""Adversarial distillation: the discriminator's state and its share of the gradient."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from models.training.networks.architecture import TEXT_WIDTH
from models.training.networks.discriminator import Discriminator
from models.training.stages.adversarial import (
    GENERATOR_WEIGHT,
    WARMUP_STEPS,
    AdversarialRun,
    load_discriminator,
)
from models.training.stages.distillation import pseudo_huber
from models.training.stages.student import ROLLOUT, StudentRun
from tests.training.batches import CPU, small_mixture, write_student


@pytest.fixture(name="run")
def make_run(tmp_path: Path) -> AdversarialRun:
    torch.manual_seed(0)
    write_student(tmp_path, std=0.02)
    return AdversarialRun(tmp_path, small_mixture(tmp_path), CPU, 1e-3)


def test_discriminator_warmup(run: AdversarialRun) -> None:
    """The student does not change during the discriminator's warm-up, and does at the next step."""
    weight = run.student.conv_out.weight
    before = weight.detach().clone()
    discriminator = [p.clone() for p in run.discriminator.parameters()]
    run.step(1.0)
    assert torch.equal(weight, before)
    pairs = zip(discriminator, run.discriminator.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    run.discriminator_steps = WARMUP_STEPS
    assert torch.isfinite(run.step(1.0))
    assert not torch.equal(weight, before)


def test_discriminator_resumes(run: AdversarialRun) -> None:
    """Its weights and steps are in the work folder; new discriminators are equal."""
    folder = run.discriminator_path.parent
    new, steps = load_discriminator(run.discriminator_path)
    assert steps == 0
    assert_same(run.discriminator, new)
    run.step(1.0)
    run.save()
    resumed = AdversarialRun(folder, run.mixture, CPU)
    assert resumed.discriminator_steps == 1
    assert_same(run.discriminator, resumed.discriminator)


def assert_same(one: Discriminator, other: Discriminator) -> None:
    """Assert equal parameters, to the precision of sixteen bits."""
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_gradient_shares(run: AdversarialRun) -> None:
    """The generator's gradient is proportional to the target's and to x_t's noise, in its rows."""
    output, targets = torch.randn(2, 4, 4, 16, 16).unbind()
    rows, prompts = torch.tensor([0, 2]), torch.randn(2, TEXT_WIDTH)
    timesteps = torch.tensor([399, 59])
    leaf = output.clone().requires_grad_()
    (target_gradient,) = torch.autograd.grad(pseudo_huber(leaf, targets), leaf)
    gradient = run.output_gradient(output.clone(), targets, rows, prompts, timesteps)
    generator_gradient = gradient - target_gradient
    assert generator_gradient[[1, 3]].abs().max() == 0
    alphas = run.distillation.schedule.alphas_cumprod[timesteps]
    shares = GENERATOR_WEIGHT * (1 - alphas).sqrt()
    assert shares[1] < shares[0] / 2
    norms = generator_gradient[rows].flatten(1).norm(dim=1)
    expected = shares * target_gradient[rows].flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, expected, rtol=1e-3, atol=0)


def test_missing_student(run: AdversarialRun) -> None:
    """Without a student both stages end in an error that names the stage to run first."""
    folder = run.discriminator_path.parent
    (folder / "student.safetensors").unlink()
    for begin in (AdversarialRun, partial(StudentRun, stage=ROLLOUT)):
        with pytest.raises(SystemExit, match="--stage consistency first"):
            begin(folder, run.mixture, CPU)
