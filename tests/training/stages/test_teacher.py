"""The teacher's loss, its timesteps, and the trunk that learns from small images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.networks.architecture import TRUNK_ZOOM
from models.training.networks.noise import NoiseSchedule
from models.training.stages.corruption import LAST_SHARE, max_timesteps
from models.training.stages.teacher import Teacher, sample_timesteps, teacher_loss
from tests.training.batches import EMPTY, random_batch


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher()


def test_trunk_noise() -> None:
    """At every timestep, averaging noisy large latents gives the trunk's signal and noise."""
    schedule, small = NoiseSchedule(), torch.randn(4, 4, 16, 16)
    large = small.repeat_interleave(TRUNK_ZOOM, 2).repeat_interleave(TRUNK_ZOOM, 3)
    for t in (19, 500, 999):
        steps = torch.full((4,), t)
        signal, sigma = schedule.scales(steps)
        noisy = schedule.add_noise(large, torch.randn_like(large), steps)
        averaged = F.avg_pool2d(noisy, TRUNK_ZOOM) - signal * small
        trunk = torch.randn_like(small) / TRUNK_ZOOM * sigma
        assert averaged.std().item() == pytest.approx(trunk.std().item(), rel=0.1)


def test_trunk_trains_inner_levels(teacher: Teacher) -> None:
    """Its gradient reaches the text encoder and the inner levels, and no outer level."""
    teacher.zero_grad()
    nn.init.normal_(teacher.trunk.exit.weight, std=0.01)
    batch = random_batch(size=16, for_trunk=True)
    torch.autograd.backward(teacher_loss(teacher, batch, EMPTY, NoiseSchedule()))
    names = {name for name, p in teacher.named_parameters() if p.grad is not None}
    assert {"trunk.entry.weight", "trunk.exit.weight"} <= names
    assert any(name.startswith("text.") for name in names)
    for inner in ("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1"):
        assert any(name.startswith(f"unet.{inner}.") for name in names)
    for outer in ("conv_in", "conv_out", "down_blocks.0", "down_blocks.1", "up_blocks.2"):
        assert not any(name.startswith(f"unet.{outer}.") for name in names)


def test_large_images_train_whole_unet(teacher: Teacher) -> None:
    """Every parameter of the UNet gets a gradient, and none of the trunk's convolutions."""
    teacher.zero_grad()
    torch.autograd.backward(teacher_loss(teacher, random_batch(size=16), EMPTY, NoiseSchedule()))
    assert all(p.grad is not None for p in teacher.unet.parameters())
    assert all(p.grad is None for p in teacher.trunk.parameters())


@pytest.mark.parametrize("power", [1.0, 0.45])
def test_timestep_distribution(power: float) -> None:
    """Timesteps are distributed as u ** power, and a share of them is the largest."""
    torch.manual_seed(0)
    mean = sample_timesteps(torch.full((4000,), 999), power).float().mean().item()
    expected = LAST_SHARE * 999 + (1 - LAST_SHARE) * 1000 / (1 + power)
    assert mean == pytest.approx(expected, abs=15)


def test_largest_timestep() -> None:
    """No timestep exceeds its row's largest, which comes with a share of LAST_SHARE."""
    torch.manual_seed(0)
    largest = max_timesteps(torch.arange(4000) % 2 == 0)
    drawn = sample_timesteps(largest)
    assert (drawn <= largest).all()
    share = (drawn == largest).float().mean().item()
    assert share == pytest.approx(LAST_SHARE, abs=0.02)


def test_things_weigh_more() -> None:
    """The same error costs more on a thing than on its place; an even mask changes nothing."""
    batch = random_batch(size=16)
    left = torch.zeros(2, 1, 16, 16)
    left[..., :8] = 1
    losses = {}
    for name, mask in (("even", torch.ones_like(left)), ("thing", left), ("place", 1 - left)):
        torch.manual_seed(1)
        weighed = batch._replace(thing_mask=mask)
        losses[name] = teacher_loss(WrongOnTheLeft(), weighed, EMPTY, NoiseSchedule()).item()
    assert losses["place"] < losses["even"] < losses["thing"]


class WrongOnTheLeft(nn.Module):
    """A net with a large error of v in the left half, and a small one in the right half."""

    def forward(self, x_t: Tensor, *_: Tensor, **__: bool) -> Tensor:
        v = torch.zeros_like(x_t)
        v[..., :8] = 9
        return v
