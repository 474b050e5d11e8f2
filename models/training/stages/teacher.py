"""Stage 4: the teacher, a latent diffusion model, and its text encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.loop.checkpoint import NetworkState, load_network, load_state
from models.training.loop.data_parallel import SINGLE_PROCESS, DataParallel
from models.training.loop.fit import optimizer_step
from models.training.loop.muon import Muon
from models.training.loop.precision import mixed
from models.training.networks.architecture import (
    TRUNK_ZOOM,
    Trunk,
    build_text_encoder,
    build_unet,
    predict_velocity,
)
from models.training.networks.noise import NoiseSchedule
from models.training.networks.tokenizer import tokenize
from models.training.stages.corruption import LAST_SHARE, corrupt, max_timesteps
from models.training.stages.latent_dataset import LatentBatch, LatentMixture

TIMESTEP_POWER, TRUNK_TIMESTEP_POWER = 1.0, 0.45  # 1 is uniform; less samples more noise
THING_WEIGHT, TRUNK_THING_WEIGHT = 2.0, 4.0  # in the loss
PROMPT_DROPOUT = 0.1  # prompts replaced by "" (Ho and Salimans 2022, arXiv 2207.12598)
FULL_LENGTH_EVERY = 4  # steps; the others have shorter token rows


class Teacher(nn.Module):
    """The UNet, the text encoder and the trunk, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_unet(guided=False)
        self.text = build_text_encoder()
        self.trunk = Trunk()

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return prompt embeddings [B, L, D] of token ids [B, L]."""
        embeddings: Tensor = self.text(tokens).last_hidden_state
        return embeddings

    def forward(
        self, x_t: Tensor, timesteps: Tensor, tokens: Tensor, *, through_trunk: bool = False
    ) -> Tensor:
        """Return v [B, 4, h, w] of the whole UNet, or of its trunk."""
        trunk = self.trunk if through_trunk else None
        return predict_velocity(self.unet, x_t, timesteps, self.encode_text(tokens), trunk=trunk)


def sample_timesteps(largest: Tensor, power: float = TIMESTEP_POWER) -> Tensor:
    """Return timesteps [B] in 0..largest [B], denser near `largest` for a smaller `power`.

    The content of an image is decided early, under much noise; in large latents at still higher
    timesteps, because the same noise hides less there.
    """
    count, device = len(largest), largest.device
    strata = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    strata = strata[torch.randperm(count, device=device)] ** power
    steps = (strata * (largest + 1)).long().minimum(largest)
    is_last = torch.rand(count, device=device) < LAST_SHARE
    return torch.where(is_last, largest, steps)


def teacher_loss(
    teacher: nn.Module, batch: LatentBatch, empty: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """Return the mean squared error of v, in which things weigh more than their places.

    `empty` [1, 77] are the tokens of "". A thing covers a quarter of an image, and its kind shows
    in a tenth. Small images teach content, which is decided under much noise. Large images teach
    the hatching and grain of a style, of which places have as much as things, under little noise.

    The trunk's latents are those of large images averaged over squares of TRUNK_ZOOM, which leaves
    that much less noise: a timestep has the same meaning for the trunk and for the whole UNet.
    """
    latents, for_trunk = batch.latents, batch.for_trunk
    power, thing_weight, noise_scale = (
        (TRUNK_TIMESTEP_POWER, TRUNK_THING_WEIGHT, 1 / TRUNK_ZOOM)
        if for_trunk
        else (TIMESTEP_POWER, THING_WEIGHT, 1.0)
    )
    timesteps = sample_timesteps(max_timesteps(batch.posed), power)
    inputs = corrupt(latents, batch.doodles, batch.posed, timesteps)
    x_t = schedule.add_noise(inputs, noise_scale * torch.randn_like(latents), timesteps)
    target = schedule.velocity(x_t, latents, timesteps)
    is_dropped = torch.rand(len(latents), 1, device=latents.device) < PROMPT_DROPOUT
    prompts = torch.where(is_dropped, empty[:, : batch.tokens.shape[1]], batch.tokens)
    with mixed(latents.device):
        v = teacher(x_t, timesteps, prompts, through_trunk=for_trunk)
    weights = 1 + (thing_weight - 1) * F.max_pool2d(batch.thing_mask, 3, stride=1, padding=1)
    loss: Tensor = (weights * (v.float() - target).square()).mean() / weights.mean()
    return loss


def teacher_path(folder: Path) -> Path:
    return folder / "teacher.safetensors"


def has_trained_teacher(folder: Path) -> bool:
    """Whether a teacher has learned from images here, and is not just a warm start."""
    path = teacher_path(folder)
    return path.exists() and int(load_state(path)[1]["seen"]) > 0


def load_teacher(folder: Path) -> Teacher:
    """Return the averaged teacher in float32 for inference."""
    return load_network(teacher_path(folder), Teacher())


def resume_teacher(folder: Path) -> NetworkState[Teacher]:
    """Return the teacher's state, or a new teacher's."""
    torch.manual_seed(0)
    return NetworkState(teacher_path(folder), Teacher())


class TeacherRun:
    """The teacher's training, from its state or from nothing."""

    name = "teacher"

    def __init__(
        self,
        folder: Path,
        mixture: LatentMixture,
        device: torch.device,
        rate: float = 2e-3,
        group: DataParallel = SINGLE_PROCESS,
    ) -> None:
        self.state, self.group = resume_teacher(folder), group
        self.state.to(device)
        self.teacher = self.state.net
        for net in (self.teacher.unet, self.teacher.trunk):
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mixture, self.rate = mixture, rate
        group.seed(self.seen + 1)
        self.rng = torch.Generator().manual_seed(self.seen + 1)
        self.schedule = NoiseSchedule().to(device)
        self.empty = torch.tensor(tokenize([""]), device=device)  # [1, 77]
        self.optimizer = Muon(self.teacher)
        self.steps = 0

    @property
    def seen(self) -> int:
        return self.state.seen

    def step(self, factor: float) -> Tensor:
        drawn = self.mixture.draw(self.rng)
        batch = drawn.shard(self.group)
        if self.steps % FULL_LENGTH_EVERY:
            batch = batch._replace(tokens=trim_padding(batch.tokens, int(self.empty[0, -1])))
        loss = teacher_loss(self.teacher, batch, self.empty, self.schedule)
        optimizer_step(loss, self.optimizer, self.teacher, self.rate * factor, group=self.group)
        self.state.count(len(drawn.latents))
        self.steps += 1
        return loss

    def save(self) -> None:
        self.state.save()
        self.mixture.refresh()


def trim_padding(tokens: Tensor, padding: int) -> Tensor:
    """Return token ids [B, L] without most of the padding.

    The text encoder is causal: the states of the remaining tokens do not change. It saves a third
    of a small step. Full rows from time to time keep the UNet used to the padding.
    """
    longest = int((tokens != padding).sum(1).max()) + 1
    return tokens[:, : longest + 3]
