"""Stage 5: distillation of the teacher into a student with a guidance embedding.

**Guidance distillation** puts the teacher's two forwards, with and without the prompt, into one
forward of the student, for every w = guidance - 1 in [-0.5, 19], the range of the API (Meng et al.
2023, arXiv 2210.03142, stage one). `trajectory_distillation` and `rollout` have the next stages.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from models.training.loop.precision import mixed
from models.training.networks.architecture import TRUNK_ZOOM, Trunk, build_unet, predict_velocity
from models.training.networks.noise import NoiseSchedule, embed_guidance, per_row
from models.training.networks.tokenizer import tokenize
from models.training.stages.corruption import corrupt, max_timesteps, sample_grid
from models.training.stages.latent_dataset import LatentBatch
from models.training.stages.teacher import Teacher

MIN_W, MAX_W = -0.5, 19.0
RESCALE = 0.8  # the share of guidance's gain in contrast that is removed (arXiv 2305.08891, 3.4)
LATENT_BOUND = 3.2  # of true latents
HUBER_C = 1e-3
EMA_DECAY = 0.8  # what is learned at one step of the grid reaches the next in five steps


def classifier_free_guidance(conditional: Tensor, unconditional: Tensor, w: Tensor) -> Tensor:
    """Return x_0 [B, 4, h, w] guided by w [B]."""
    return conditional + per_row(w) * (conditional - unconditional)


def rescaled_guidance(conditional: Tensor, unconditional: Tensor, w: Tensor) -> Tensor:
    """Return the guided x_0 [B, 4, h, w] with limited contrast, inside the range of latents.

    Guidance of a small teacher overshoots: at w = 10 all images are saturated. The guided x_0 is
    therefore scaled towards the standard deviation of the conditional one, by RESCALE.
    """
    x_0 = classifier_free_guidance(conditional, unconditional, w)
    gain = conditional.std((1, 2, 3), keepdim=True) / x_0.std((1, 2, 3), keepdim=True)
    x_0 = x_0 * (1 - RESCALE + RESCALE * gain.clamp_max(1))
    return x_0.clamp(-LATENT_BOUND, LATENT_BOUND)


class NoisyBatch(NamedTuple):
    """The arguments of the consistency function, by rows."""

    x_t: Tensor  # [B, 4, h, w]
    timesteps: Tensor  # [B]
    text: Tensor  # [B, L, D]
    w: Tensor  # [B], guidance - 1

    def rows(self, index: Tensor | slice) -> NoisyBatch:
        return NoisyBatch(*(part[index] for part in self))


def consistency_function(
    net: UNet2DConditionModel,
    noisy: NoisyBatch,
    schedule: NoiseSchedule,
    trunk: Trunk | None = None,
) -> Tensor:
    """Return f(x_t, t, text, w) [B, 4, h, w]; below t = 0 it is x_t."""
    x_t, timesteps, text, w = noisy
    steps = timesteps.clamp_min(0)
    v = predict_velocity(net, x_t, steps, text, embed_guidance(w), trunk=trunk).float()
    return torch.where(per_row(timesteps < 0), x_t, schedule.consistency(x_t, v, steps))


def pseudo_huber(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean pseudo-Huber distance (Song and Dhariwal 2023, arXiv 2310.14189)."""
    return ((output - target).square() + HUBER_C**2).sqrt().sub(HUBER_C).mean()


class Distillation(nn.Module):
    """A frozen teacher, a student, the student's moving average, and the loss of a batch."""

    empty: Tensor  # [1, 77], the tokens of ""

    def __init__(self, teacher: Teacher, student: UNet2DConditionModel) -> None:
        super().__init__()
        self.teacher = teacher.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
        self.student = student
        self.ema = build_unet(guided=True)
        self.ema.load_state_dict(student.state_dict())
        self.ema.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature
        self.schedule = NoiseSchedule()
        self.register_buffer("empty", torch.tensor(tokenize([""])))

    def targets(self, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        """Return the x_0 [B, 4, h, w] that the student should predict."""
        raise NotImplementedError

    def sample_noisy(self, batch: LatentBatch) -> NoisyBatch:
        """Return a random point of a trajectory for each row of a batch."""
        timesteps = sample_grid(max_timesteps(batch.posed))
        inputs = corrupt(batch.latents, batch.doodles, batch.posed, timesteps)
        w = torch.rand(len(timesteps), device=timesteps.device).square()  # denser at small w
        return NoisyBatch(
            self.add_noise(inputs, batch, timesteps),
            timesteps,
            self.teacher.encode_text(batch.tokens),
            w * (MAX_W - MIN_W) + MIN_W,
        )

    def add_noise(self, latents: Tensor, batch: LatentBatch, timesteps: Tensor) -> Tensor:
        """Return x_t [B, 4, h, w], with less noise for the small latents of a trunk's batch."""
        noise = torch.randn_like(latents) / (TRUNK_ZOOM if batch.for_trunk else 1)
        return self.schedule.add_noise(latents, noise, timesteps)

    def predict(self, net: UNet2DConditionModel, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        """Return the consistency function of `net`, through the teacher's trunk for small latents.

        Small latents train the inner levels alone, between the trunk's convolutions as the teacher
        has trained them: the inner levels decide the content, at a third of the cost.
        """
        trunk = self.teacher.trunk if batch.for_trunk else None
        return consistency_function(net, noisy, self.schedule, trunk)

    def forward(self, batch: LatentBatch) -> Tensor:
        """Return the pseudo-Huber distance between the student's predictions and the targets."""
        with mixed(batch.latents.device):
            noisy = self.sample_noisy(batch)
            targets = self.targets(noisy, batch)
            predicted = self.predict(self.student, noisy, batch)
        return pseudo_huber(predicted, targets)

    @torch.no_grad()
    def update_ema(self) -> None:
        pairs = zip(self.ema.parameters(), self.student.parameters(), strict=True)
        for ema, student in pairs:
            ema.lerp_(student, 1 - EMA_DECAY)


class GuidanceDistillation(Distillation):
    """The student learns the teacher's guided prediction at every w."""

    @torch.no_grad()
    def targets(self, noisy: NoisyBatch, batch: LatentBatch) -> Tensor:
        x_t, timesteps, text, w = noisy
        empty = self.teacher.encode_text(self.empty[:, : text.shape[1]]).expand(len(x_t), -1, -1)
        inputs = torch.cat((x_t, x_t)), timesteps.repeat(2), torch.cat((text, empty))
        trunk = self.teacher.trunk if batch.for_trunk else None
        both = predict_velocity(self.teacher.unet, *inputs, trunk=trunk).float()
        conditional, unconditional = (
            self.schedule.predict_x0(x_t, v, timesteps) for v in both.chunk(2)
        )
        return rescaled_guidance(conditional, unconditional, w)
