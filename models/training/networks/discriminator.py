"""A discriminator of latents: generated or true, given the prompt.

It classifies patches of three sizes, for grain as well as for a thing's form, and never the whole:
the teacher decides what an image shows. Spectral norms keep its gradients small (Miyato et al.
2018, arXiv 1802.05957). The prompt enters by projection (Miyato and Koyama 2018, arXiv 1802.05637).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.nn.utils.parametrizations import spectral_norm

from models.training.networks.architecture import TEXT_WIDTH

LAYERS = ((4, 64, 1), (64, 128, 2), (128, 192, 2), (192, 192, 1), (192, 192, 2))  # in, out, stride
OUTPUT_LAYERS = (1, 3, 4)  # with receptive fields of 6, 20 and 32 latents
PROMPT_WEIGHT = 4.0


class Discriminator(nn.Module):
    """Convolutions with logits at three depths."""

    def __init__(self) -> None:
        super().__init__()
        # Zero padding would show the discriminator the frame; the student then drew a stripe there.
        self.layers = nn.ModuleList(
            spectral_norm(
                nn.Conv2d(before, after, 3 if stride == 1 else 4, stride, 1, padding_mode="reflect")
            )
            for before, after, stride in LAYERS
        )
        widths = [LAYERS[index][1] for index in OUTPUT_LAYERS]
        self.heads = nn.ModuleList(spectral_norm(nn.Conv2d(width, 1, 1)) for width in widths)
        self.projections = nn.ModuleList(
            spectral_norm(nn.Linear(TEXT_WIDTH, width)) for width in widths
        )

    def forward(self, latents: Tensor, prompts: Tensor) -> list[Tensor]:
        """Return logits [B, 1, h', w'] of latents [B, 4, h, w] for prompts [B, TEXT_WIDTH].

        One tensor for each size of patch; positive for true latents.
        """
        logits, hidden = [], latents
        outputs = iter(zip(self.heads, self.projections, strict=True))
        for index, layer in enumerate(self.layers):
            hidden = F.leaky_relu(layer(hidden), 0.2)
            if index in OUTPUT_LAYERS:
                head, projection = next(outputs)
                match = (hidden * projection(prompts)[:, :, None, None]).mean(1, keepdim=True)
                logits.append((head(hidden) + PROMPT_WEIGHT * match).float())
        return logits


def discriminator_loss(net: Discriminator, fake: Tensor, true: Tensor, prompts: Tensor) -> Tensor:
    """Return the hinge loss: 0 for confident correct logits, 2 for logits of 0."""
    logits = net(torch.cat((fake, true)), prompts.repeat(2, 1))
    halves = [logit.chunk(2) for logit in logits]
    return torch.stack([F.relu(1 + f).mean() + F.relu(1 - t).mean() for f, t in halves]).mean()


def generator_loss(net: Discriminator, fake: Tensor, prompts: Tensor) -> Tensor:
    """Return the negated mean logit of generated latents [B, 4, h, w]."""
    return -torch.stack([logit.mean() for logit in net(fake, prompts)]).mean()
