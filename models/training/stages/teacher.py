"""Stage 4: the teacher, a latent diffusion model with its text encoder, for guidance later."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from models.training.loop.checkpoint import Average, load_state, part, prefixed, save_state
from models.training.loop.data_parallel import ALONE, Team
from models.training.loop.muon import Muon
from models.training.loop.precision import mixed
from models.training.networks import noise as diffusion
from models.training.networks.architecture import (
    TRUNK_ZOOM,
    Trunk,
    build_text_encoder,
    build_unet,
    predict,
)
from models.training.networks.tokenizer import tokenize
from models.training.stages.latent_dataset import Bank, Sample

EARLY, EARLY_TRUNK = 1.0, 0.45  # the exponent that spreads timesteps; 1 is even
THING_WEIGHT, THING_WEIGHT_TRUNK = 2.0, 4.0
DROPOUT = 0.1  # of prompts, replaced by "" (Ho and Salimans 2022, arXiv 2207.12598)


class Teacher(nn.Module):
    """The UNet and the text encoder that learn together, and the trunk's way in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_unet(guided=False)
        self.text = build_text_encoder()
        self.trunk = Trunk()

    def read(self, tokens: Tensor) -> Tensor:
        """Return prompt embeddings [B, 77, D] of token ids [B, 77]."""
        embeddings: Tensor = self.text(tokens).last_hidden_state
        return embeddings

    def forward(
        self, x_t: Tensor, timesteps: Tensor, tokens: Tensor, *, through_trunk: bool = False
    ) -> Tensor:
        """Return v [B, 4, h, w], of the whole UNet or of its trunk alone."""
        trunk = self.trunk if through_trunk else None
        return predict(self.unet, x_t, timesteps, self.read(tokens), trunk=trunk)


class Mixture:
    """Banks of several shapes; each step draws from one of them by weight."""

    def __init__(self, banks: list[Bank], weights: list[float], base: int) -> None:
        """`base` is the batch at 16 x 16 latents; what costs more gets fewer rows."""
        self.banks, self.weights, self.base = banks, torch.tensor(weights), base

    def draw(self, lot: torch.Generator) -> Sample:
        bank = self.banks[int(torch.multinomial(self.weights, 1, generator=lot))]
        height, width = bank.shape
        price = height * width / 128**2 * (TRUNK_ZOOM if bank.for_trunk else 1)
        return bank.draw(max(4, round(self.base / price)), lot)

    def refresh(self) -> None:
        for bank in self.banks:
            bank.refresh()


def drop_prompts(tokens: Tensor, empty: Tensor, share: float) -> Tensor:
    """Return tokens [B, 77] with a share of rows replaced by the empty prompt's [77]."""
    drop = torch.rand(len(tokens), 1, device=tokens.device) < share
    return torch.where(drop, empty, tokens)


def trimmed(tokens: Tensor, end: int, *, whole: bool) -> Tensor:
    """Return tokens [B, L] without most of the padding, but for `whole` batches.

    The text encoder is causal, so trimming leaves the states of the tokens that stay as they
    were. It saves a third of a small step; whole batches keep the UNet used to the padding.
    """
    if whole:
        return tokens
    longest = int((tokens != end).sum(1).max()) + 1
    return tokens[:, : min(longest + 3, tokens.shape[1])]


def draw_timesteps(latest: Tensor, early: float = EARLY) -> Tensor:
    """Return timesteps [B], spread over 0..latest [B], more densely there the less `early` is.

    What a picture shows is decided early, under much noise; the large latents most of all,
    where the same noise hides less.
    """
    count, device = len(latest), latest.device
    spread = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    spread = spread[torch.randperm(count, device=device)] ** early
    steps = (spread * (latest + 1)).long().minimum(latest)
    is_last = torch.rand(count, device=device) < diffusion.LAST_SHARE
    return torch.where(is_last, latest, steps)


def teacher_loss(teacher: nn.Module, sample: Sample, empty: Tensor, powers: Tensor) -> Tensor:
    """Return the mean squared error of v over a batch, in which things weigh more than places.

    A thing covers a quarter of a picture, and what kind it is shows in a tenth. Small pictures
    teach what is meant, and late; large ones the hatching and grain of a style, of which places
    have as much as things, and which are decided under little noise.

    The trunk's small latents stand for large ones averaged over squares of TRUNK_ZOOM, where
    that much less of the noise is left: a timestep means to it what it means to the whole UNet.
    """
    latents, doodles, tokens, things, posed, for_trunk = sample
    early, thing_weight, loudness = (
        (EARLY_TRUNK, THING_WEIGHT_TRUNK, 1 / TRUNK_ZOOM)
        if for_trunk
        else (EARLY, THING_WEIGHT, 1.0)
    )
    timesteps = draw_timesteps(diffusion.latest_of(posed), early)
    visible = diffusion.shown(latents, doodles, posed, timesteps)
    x_t = diffusion.noised(visible, loudness * torch.randn_like(latents), powers, timesteps)
    target = diffusion.velocity(x_t, latents, powers, timesteps)
    prompts = drop_prompts(tokens, empty[:, : tokens.shape[1]], DROPOUT)
    with mixed(latents.device):
        v = teacher(x_t, timesteps, prompts, through_trunk=for_trunk)
    weights = 1 + (thing_weight - 1) * F.max_pool2d(things, 3, stride=1, padding=1)
    loss: Tensor = (weights * (v.float() - target).square()).mean() / weights.mean()
    return loss


def is_taught(folder: Path) -> bool:
    """Tell whether a teacher has learned here from pictures, and not only come from what ships."""
    path = folder / "teacher.safetensors"
    return path.exists() and int(load_state(path)[1]["seen"]) > 0


def load_teacher(folder: Path, which: str = "average.") -> Teacher:
    """Return the teacher with its averaged (or "weights.") parameters, in float32."""
    state, _ = load_state(folder / "teacher.safetensors")
    teacher = Teacher()
    teacher.load_state_dict(part(state, which))
    return teacher


class TeacherState:
    """The teacher's parameters and their average, as they lie in the work folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "teacher.safetensors"
        torch.manual_seed(0)
        self.teacher, self.seen = Teacher(), 0
        self.average = Average(self.teacher, 0.998)
        if self.path.exists():
            state, facts = load_state(self.path)
            self.teacher.load_state_dict(part(state, "weights."))
            self.average.restart(part(state, "average."), 300)
            self.seen = int(facts["seen"])

    def save(self) -> None:
        tensors = prefixed("weights.", self.teacher.state_dict())
        save_state(self.path, tensors | prefixed("average.", self.average.shadow), seen=self.seen)

    def save_text(self) -> None:
        """Save with the text encoder's average set to what it is now."""
        for name, value in prefixed("text.", self.teacher.text.state_dict()).items():
            self.average.shadow[name].copy_(value)
        self.save()


class TeacherRun:
    """The teacher's training: from the saved state, or from nothing."""

    name = "teacher"

    def __init__(
        self,
        folder: Path,
        mixture: Mixture,
        device: torch.device,
        rate: float = 2e-3,
        team: Team = ALONE,
    ) -> None:
        self.state, self.team = TeacherState(folder), team
        self.teacher = self.state.teacher.to(device)
        for net in (self.teacher.unet, self.teacher.trunk):
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state.average.to(device)
        self.mixture, self.rate = mixture, rate
        team.seed(self.seen + 1)
        self.lot = torch.Generator().manual_seed(self.seen + 1)
        self.powers = diffusion.alphas_cumprod(device)
        self.empty = torch.tensor(tokenize([""]), device=device)  # [1, 77]
        self.optimizer = Muon(self.teacher)
        self.steps = 0

    @property
    def seen(self) -> int:
        """How many pictures it has learned from, all runs together."""
        return self.state.seen

    def step(self, factor: float) -> Tensor:
        drawn = self.mixture.draw(self.lot)
        sample = drawn.share(self.team)
        whole = self.steps % 4 == 0
        sample = sample._replace(tokens=trimmed(sample.tokens, int(self.empty[0, -1]), whole=whole))
        loss = teacher_loss(self.teacher, sample, self.empty, self.powers)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.team.average_gradients(self.teacher.parameters())
        nn.utils.clip_grad_norm_(self.teacher.parameters(), 1.0)
        self.optimizer.step(self.rate * factor)
        self.state.average.update(self.teacher)
        self.state.seen += len(drawn.latents)
        self.steps += 1
        return loss

    def save(self) -> None:
        self.state.save()
        self.mixture.refresh()
