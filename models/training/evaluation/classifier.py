"""Judges: a small classifier of kind, colour and style, trained on true renders alone.

It never sees a picture of the model's. Its own accuracy on renders of held-out scenes is
printed beside every figure it gives. Its pooled features serve the Frechet distance.

It sees every shape undistorted, and has learned from wide and tall renders, too. (One that had
every picture squeezed into a square, and had learned from squares alone, knew a quarter of the true
renders of 512 x 1024: what it said of the model there was about itself.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from tqdm import tqdm

from models.training.loop.checkpoint import Average, Budget, load_state, part, prefixed, save_state
from models.training.loop.fit import fit
from models.training.loop.precision import mixed
from models.training.scenes.gbuffer import rasterise
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.renderers import PAINTERS
from models.training.scenes.scene import KINDS, Scene, draw_scene
from models.training.stages.latent_dataset import Shape

SIDE = 96  # pixels; the shorter side that pictures are shrunk to by area
SQUARE: Shape = (128, 128)
WIDE: tuple[Shape, ...] = ((128, 160), (160, 128), (128, 208), (208, 128), (128, 256), (256, 128))
WIDE_SHARE = 0.5  # of the scenes, and of the steps, that learn from shapes that are no squares
STYLES = tuple(PAINTERS)
TRAIN_SEEDS = 20_000_000
HELD_OUT_SEEDS = 30_000_000
COLOURLESS = STYLES.index("SKETCH_BW")


class Verdict(NamedTuple):
    """Logits of a batch, and the features they were read from."""

    kind: Tensor  # [B, 16]
    colour: Tensor  # [B, 12]
    style: Tensor  # [B, 14]
    features: Tensor  # [B, 128]


class Labelled(NamedTuple):
    """Rendered pictures and what they show."""

    pictures: Tensor  # [N, 3, H, W] uint8
    kind: Tensor  # [N]
    colour: Tensor  # [N]; -1 where the style has no colour
    style: Tensor  # [N]


def _stage(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class Judge(nn.Module):
    """Four strided stages, pooled by mean and by maximum, and a head for each question."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_stage(3, 24), _stage(24, 48), _stage(48, 96), _stage(96, 128))
        self.neck = nn.Sequential(nn.Linear(256, 128), nn.ReLU())
        self.kind = nn.Linear(128, len(KINDS))
        self.colour = nn.Linear(128, len(COLOUR_NAMES))
        self.style = nn.Linear(128, len(STYLES))

    @staticmethod
    def shrunk(pictures: Tensor) -> Tensor:
        """Return pictures [B, 3, H, W] with SIDE for their shorter side."""
        short = min(pictures.shape[-2:])
        size = [round(side * SIDE / short) for side in pictures.shape[-2:]]
        return F.interpolate(pictures, size=size, mode="area")

    def forward(self, pictures: Tensor) -> Verdict:
        """Judge pictures [B, 3, H, W] in 0..1 of any shape."""
        planes = self.trunk(self.shrunk(pictures) * 2 - 1)
        pooled = torch.cat((planes.mean((2, 3)), planes.amax((2, 3))), 1)
        features = self.neck(pooled)
        return Verdict(self.kind(features), self.colour(features), self.style(features), features)


def single_scenes(seed: int, count: int, *, posed: bool = False) -> list[Scene]:
    """Return scenes of one thing each, where it may stand or (`posed`) where it usually does."""
    return [draw_scene(seed + n, max_things=1, posed=posed) for n in range(count)]


@torch.no_grad()
def label_renders(
    seed: int, scenes: int, styles_each: int, device: torch.device, shape: Shape = SQUARE
) -> Labelled:
    """Render single things in several styles each, with their labels."""
    pictures, kinds, colours, styles = [], [], [], []
    lot = torch.Generator().manual_seed(seed)
    every = single_scenes(seed, scenes)
    desc = f"renders of {shape[0]} x {shape[1]} for the judge"
    for at in tqdm(range(0, scenes, 16), desc=desc, mininterval=5):
        batch = every[at : at + 16]
        planes = rasterise(batch, shape, device)
        for index in torch.randperm(len(STYLES), generator=lot)[:styles_each].tolist():
            pictures.append((PAINTERS[STYLES[index]](planes) * 255).round().byte())
            kinds += [KINDS.index(s.things[0].kind) for s in batch]
            colours += [
                -1 if index == COLOURLESS else COLOUR_NAMES.index(s.things[0].colour) for s in batch
            ]
            styles += [index] * len(batch)
    labels = (torch.tensor(values, device=device) for values in (kinds, colours, styles))
    return Labelled(torch.cat(pictures), *labels)


def _augmented(pictures: Tensor) -> Tensor:
    """Return float pictures with the noise and blur an autoencoder may add."""
    x = pictures.float() / 255
    if torch.rand(()) < 0.5:
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    gain = 1 + 0.06 * torch.randn(len(x), 3, 1, 1, device=x.device)
    x = x * gain + 0.03 * torch.randn_like(x)
    dx, dy = torch.randint(-8, 9, (2,)).tolist()
    return x.roll((dy, dx), (2, 3)).clamp(0, 1)


def judge_loss(verdict: Verdict, kind: Tensor, colour: Tensor, style: Tensor) -> Tensor:
    loss = F.cross_entropy(verdict.kind, kind) + F.cross_entropy(verdict.style, style)
    if (colour >= 0).any():
        loss = loss + F.cross_entropy(verdict.colour, colour, ignore_index=-1)
    return loss


class JudgeRun:
    """A judge's training, from nothing."""

    name = "judge"

    def __init__(self, folder: Path, device: torch.device, scenes: int, rate: float) -> None:
        self.path, self.rate, self.seen = folder / "judge.safetensors", rate, 0
        torch.manual_seed(0)
        self.device, self.judge = device, Judge().to(device)
        few = round(scenes * WIDE_SHARE / len(WIDE))
        self.squares = label_renders(TRAIN_SEEDS, scenes - few * len(WIDE), 4, device)
        self.wide = [
            label_renders(TRAIN_SEEDS + scenes * (n + 1), few, 4, device, shape)
            for n, shape in enumerate(WIDE)
        ]
        self.average = Average(self.judge, 0.998)
        self.optimizer = torch.optim.AdamW(self.judge.parameters(), lr=rate, weight_decay=0.02)

    def step(self, factor: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        data = self.squares
        if torch.rand(()) < WIDE_SHARE:
            data = self.wide[int(torch.randint(len(self.wide), ()))]
        index = torch.randint(len(data.pictures), (64,), device=self.device)
        pictures = _augmented(data.pictures[index])
        with mixed(self.device):
            verdict = self.judge(pictures.contiguous(memory_format=torch.channels_last))
        truth = (data.kind[index], data.colour[index], data.style[index])
        loss = judge_loss(Verdict(*(v.float() for v in verdict)), *truth)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.average.update(self.judge)
        self.seen += 64
        return loss

    def save(self) -> None:
        save_state(self.path, prefixed("judge.", self.average.shadow))


def train_judge(
    folder: Path, *, device: torch.device, minutes: float, scenes: int = 3000, rate: float = 2e-3
) -> None:
    """Train a judge for `minutes` and write it to `folder`."""
    run = JudgeRun(folder, device, scenes, rate)
    fit(run, Budget(minutes, warmup_steps=50, decay=0.6), save_every=1000)


def load_judge(folder: Path) -> Judge:
    state, _ = load_state(folder / "judge.safetensors")
    judge = Judge()
    judge.load_state_dict(part(state, "judge."))
    return judge.eval().requires_grad_(False)  # noqa: FBT003 - torch's own signature


@torch.no_grad()
def own_accuracy(
    judge: Judge, scenes: int = 160, shapes: Sequence[Shape] = (SQUARE,)
) -> dict[str, float]:
    """Return the judge's share of right answers on true renders of held-out scenes, a mean."""
    each = [_own_accuracy(judge, max(1, scenes // len(shapes)), shape) for shape in shapes]
    return {name: sum(own[name] for own in each) / len(each) for name in each[0]}


def _own_accuracy(judge: Judge, scenes: int, shape: Shape) -> dict[str, float]:
    data = label_renders(HELD_OUT_SEEDS, scenes, 4, torch.device("cpu"), shape)
    verdicts = [judge(x.float() / 255) for x in torch.split(data.pictures, 64)]
    right = {}
    for name, truth in (("kind", data.kind), ("colour", data.colour), ("style", data.style)):
        told = torch.cat([getattr(v, name) for v in verdicts]).argmax(1)
        known = truth >= 0
        right[name] = (told == truth)[known].float().mean().item()
    return right


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance of two sets of features [N, F] (Heusel et al. 2017)."""
    mean = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = torch.cov(a.T).double(), torch.cov(b.T).double()
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return float(mean + torch.trace(cov_a) + torch.trace(cov_b) - 2 * cross)
