"""The discriminator learns, and uses the prompt."""

from __future__ import annotations

import pytest
import torch

from models.training.networks.architecture import TEXT_WIDTH
from models.training.networks.discriminator import (
    OUTPUT_LAYERS,
    Discriminator,
    discriminator_loss,
    generator_loss,
)


def test_discriminator_learns_from_prompts() -> None:
    """Smooth images are true for one prompt and grainy ones for the other; it learns which."""
    torch.manual_seed(0)
    net, prompts = Discriminator(), torch.randn(2, TEXT_WIDTH).repeat(8, 1)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    smooth = torch.randn(16, 4, 4, 4)
    smooth = torch.nn.functional.interpolate(smooth, (16, 16), mode="bilinear")
    grainy = smooth + 0.5 * torch.randn_like(smooth)
    is_smooth = torch.arange(16).view(-1, 1, 1, 1) % 2 == 0
    true, fake = torch.where(is_smooth, smooth, grainy), torch.where(is_smooth, grainy, smooth)
    assert len(net(true, prompts)) == len(OUTPUT_LAYERS)
    assert discriminator_loss(net, fake, true, prompts).item() == pytest.approx(2, abs=0.5)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(discriminator_loss(net, fake, true, prompts))
        optimizer.step()
    with torch.no_grad():
        assert discriminator_loss(net, fake, true, prompts) < 1
        fake_loss, true_loss = (generator_loss(net, x, prompts) for x in (fake, true))
        assert fake_loss > true_loss + 0.5
