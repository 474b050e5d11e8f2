"""A critic of latents: it learns to tell a student's pictures from true ones, for their prompt.

It looks at squares of three sizes, so that it has a word for grain and one for a thing's form, and
never at the whole: what a picture shows is the teacher's to say. Spectral norms keep it from
being too sure (Miyato et al. 2018, arXiv 1802.05957); what it thinks of a prompt is a projection
(Miyato and Koyama 2018, arXiv 1802.05637).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.nn.utils.parametrizations import spectral_norm

from models.training.networks.architecture import TEXT_WIDTH

LAYERS = ((4, 64, 1), (64, 128, 2), (128, 192, 2), (192, 192, 1), (192, 192, 2))  # in, out, stride
SPEAKING = (1, 3, 4)  # the layers that are asked: squares of 6, 20 and 32 latents
PROMPT_WEIGHT = 4.0


class Critic(nn.Module):
    """A few convolutions, of which some are asked for their opinion."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            spectral_norm(
                nn.Conv2d(
                    many_in,
                    many,
                    3 if stride == 1 else 4,
                    stride,
                    padding=1,
                    padding_mode="reflect",  # zeros would show it the frame, and get a stripe there
                )
            )
            for many_in, many, stride in LAYERS
        )
        widths = [LAYERS[index][1] for index in SPEAKING]
        self.opinions = nn.ModuleList(spectral_norm(nn.Conv2d(many, 1, 1)) for many in widths)
        self.wishes = nn.ModuleList(spectral_norm(nn.Linear(TEXT_WIDTH, many)) for many in widths)

    def forward(self, latents: Tensor, prompts: Tensor) -> list[Tensor]:
        """Return opinions [B, 1, h', w'] of latents [B, 4, h, w] for prompts [B, TEXT_WIDTH].

        One of each size of square; above 0 is true, below 0 is made.
        """
        opinions, hidden = [], latents
        asked = iter(zip(self.opinions, self.wishes, strict=True))
        for index, layer in enumerate(self.layers):
            hidden = F.leaky_relu(layer(hidden), 0.2)
            if index in SPEAKING:
                opinion, wish = next(asked)
                wished = (hidden * wish(prompts)[:, :, None, None]).mean(1, keepdim=True)
                opinions.append((opinion(hidden) + PROMPT_WEIGHT * wished).float())
        return opinions


def mistakes(critic: Critic, made: Tensor, true: Tensor, prompts: Tensor) -> Tensor:
    """Return the critic's hinge loss: 0 where it is sure and right, 2 where it knows nothing."""
    opinions = critic(torch.cat((made, true)), prompts.repeat(2, 1))
    halves = [opinion.chunk(2) for opinion in opinions]
    return torch.stack([F.relu(1 + m).mean() + F.relu(1 - t).mean() for m, t in halves]).mean()


def disapproval(critic: Critic, made: Tensor, prompts: Tensor) -> Tensor:
    """Return how far the critic takes latents [B, 4, h, w] for made ones: what a student avoids."""
    return -torch.stack([opinion.mean() for opinion in critic(made, prompts)]).mean()
