"""The UNet's inner levels learn from small pictures what they will see of large ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.networks import noise as diffusion
from models.training.networks.architecture import TRUNK_ZOOM
from models.training.networks.tokenizer import tokenize
from models.training.stages.latent_dataset import Sample
from models.training.stages.teacher import Teacher, draw_timesteps, teacher_loss

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher()


def test_noise_over_a_small_picture_is_what_averaging_leaves_of_a_large_one_s() -> None:
    """At every timestep a square of noised latents averages to the same signal and noise."""
    powers = diffusion.alphas_cumprod(CPU)
    small = torch.randn(4, 4, 16, 16)
    large = small.repeat_interleave(TRUNK_ZOOM, 2).repeat_interleave(TRUNK_ZOOM, 3)
    for t in (19, 500, 999):
        steps = torch.full((4,), t)
        noised = diffusion.noised(large, torch.randn_like(large), powers, steps)
        left = F.avg_pool2d(noised, TRUNK_ZOOM) - diffusion.scales(powers, steps)[0] * small
        own = torch.randn_like(small) / TRUNK_ZOOM * diffusion.scales(powers, steps)[1]
        assert left.std().item() == pytest.approx(own.std().item(), rel=0.1)


def test_the_trunk_teaches_the_inner_levels_and_no_others(teacher: Teacher) -> None:
    """Its gradient reaches the text encoder and the levels that read it; the outer ones rest."""
    teacher.zero_grad()
    torch.nn.init.normal_(teacher.trunk.exit.weight, std=0.01)
    loss = teacher_loss(teacher, _sample(for_trunk=True), _empty(), diffusion.alphas_cumprod(CPU))
    torch.autograd.backward(loss)
    learning = {name for name, p in teacher.named_parameters() if p.grad is not None}
    assert {"trunk.entry.weight", "trunk.exit.weight"} <= learning
    assert any(name.startswith("text.") for name in learning)
    for inner in ("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1"):
        assert any(name.startswith(f"unet.{inner}.") for name in learning)
    for outer in ("conv_in", "conv_out", "down_blocks.0", "down_blocks.1", "up_blocks.2"):
        assert not any(name.startswith(f"unet.{outer}.") for name in learning)


def test_the_whole_net_learns_from_large_pictures(teacher: Teacher) -> None:
    """Every layer of the UNet has a gradient then, and the trunk's own doors have none."""
    teacher.zero_grad()
    loss = teacher_loss(teacher, _sample(for_trunk=False), _empty(), diffusion.alphas_cumprod(CPU))
    torch.autograd.backward(loss)
    assert all(p.grad is not None for p in teacher.unet.parameters())
    assert all(p.grad is None for p in teacher.trunk.parameters())


def test_timesteps_crowd_towards_the_end() -> None:
    """The smaller the exponent, the more rows learn from much noise."""
    torch.manual_seed(0)
    even, crowded = (
        draw_timesteps(torch.full((4000,), 999), early).float().mean() for early in (1.0, 0.45)
    )
    last = diffusion.LAST_SHARE
    for mean, early in ((even, 1.0), (crowded, 0.45)):  # of u ** early, u even in 0..1
        spread = 1000 / (1 + early)
        assert mean.item() == pytest.approx(last * 999 + (1 - last) * spread, abs=15)


def test_scenes_that_are_not_posed_end_sooner() -> None:
    """No timestep is later than a row's latest, and that one comes oftener than the others."""
    torch.manual_seed(0)
    latest = diffusion.latest_of(torch.arange(4000) % 2 == 0)
    drawn = draw_timesteps(latest)
    assert set(latest.tolist()) == {899, 999}
    assert (drawn <= latest).all()
    share = (drawn == latest).float().mean().item()
    assert share == pytest.approx(diffusion.LAST_SHARE, abs=0.02)


def test_things_weigh_more_than_places() -> None:
    """The same error costs more where a thing is; a wholly even weight changes nothing."""
    sample = _sample(for_trunk=False)
    left = torch.zeros(2, 1, 16, 16)
    left[..., :8] = 1
    losses = {}
    for name, things in (("even", torch.ones_like(left)), ("thing", left), ("place", 1 - left)):
        torch.manual_seed(1)
        powers = diffusion.alphas_cumprod(CPU)
        weighed = sample._replace(things=things)
        losses[name] = teacher_loss(_WrongOnTheLeft(), weighed, _empty(), powers).item()
    assert losses["place"] < losses["even"] < losses["thing"]


def _sample(*, for_trunk: bool) -> Sample:
    latents, doodles = torch.randn(2, 2, 4, 16, 16).unbind()
    tokens = torch.tensor(tokenize(["a red heart", "a boat"]))
    things, posed = torch.rand(2, 1, 16, 16), torch.tensor([True, False])
    return Sample(latents, doodles, tokens, things, posed, for_trunk)


class _WrongOnTheLeft(nn.Module):
    """A net whose v is far off in the left half alone, and about right elsewhere."""

    def forward(self, x_t: Tensor, *_: Tensor, **__: bool) -> Tensor:
        v = torch.zeros_like(x_t)
        v[..., :8] = 9
        return v


def _empty() -> torch.Tensor:
    return torch.tensor(tokenize([""]))
