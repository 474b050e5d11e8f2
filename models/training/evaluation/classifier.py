"""A small classifier of kind, colour and style, trained on true renders alone.

It never sees an image of the model. The table shows its accuracy on renders of held-out scenes. Its
pooled features serve the Frechet distance.

It sees every shape undistorted, and also learns from wide and tall renders. (A classifier that saw
every image squeezed into a square, and had learned from squares alone, knew a quarter of the true
renders of 512 x 1024: its results there were about itself and not about the model.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from tqdm import tqdm

from models.training.loop.checkpoint import MovingAverage, load_state, save_state
from models.training.loop.fit import Budget, fit, optimizer_step
from models.training.loop.precision import mixed
from models.training.recipe import Shape
from models.training.scenes.gbuffer import rasterise
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.renderers import STYLE_RENDERERS
from models.training.scenes.scene import KINDS, Scene, draw_scene

SIDE = 96  # pixels of the shorter side after shrinking
SQUARE: Shape = (128, 128)
WIDE: tuple[Shape, ...] = ((128, 160), (160, 128), (128, 208), (208, 128), (128, 256), (256, 128))
WIDE_SHARE = 0.5  # of the scenes and of the steps
BATCH_SIZE = 64
STYLES = tuple(STYLE_RENDERERS)
TRAIN_SEEDS = 20_000_000
HELD_OUT_SEEDS = 30_000_000
COLOURLESS = STYLES.index("SKETCH_BW")
NO_LABEL = -100  # the default `ignore_index` of cross_entropy


class Predictions(NamedTuple):
    """Logits of a batch, and the features below them."""

    kind: Tensor  # [B, 16]
    colour: Tensor  # [B, 12]
    style: Tensor  # [B, 14]
    features: Tensor  # [B, 128]


class LabelledRenders(NamedTuple):
    """Renders and their classes."""

    images: Tensor  # [N, 3, H, W] uint8
    kind: Tensor  # [N]
    colour: Tensor  # [N]; NO_LABEL in a style without colours
    style: Tensor  # [N]


def _stage(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, stride in ((before, 2), (after, 1)):
        layers.append(nn.Conv2d(width, after, 3, stride, padding=1, bias=False))
        layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Classifier(nn.Module):
    """Four strided stages, pooled by mean and by maximum, and a head for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_stage(3, 24), _stage(24, 48), _stage(48, 96), _stage(96, 128))
        self.neck = nn.Sequential(nn.Linear(256, 128), nn.ReLU())
        self.kind = nn.Linear(128, len(KINDS))
        self.colour = nn.Linear(128, len(COLOUR_NAMES))
        self.style = nn.Linear(128, len(STYLES))

    @staticmethod
    def shrink(images: Tensor) -> Tensor:
        """Return images [B, 3, H, W] with a shorter side of SIDE."""
        short = min(images.shape[-2:])
        size = [round(side * SIDE / short) for side in images.shape[-2:]]
        return F.interpolate(images, size=size, mode="area")

    def forward(self, images: Tensor) -> Predictions:
        """Classify images [B, 3, H, W] in 0..1 of any shape."""
        planes = self.trunk(self.shrink(images) * 2 - 1)
        pooled = torch.cat((planes.mean((2, 3)), planes.amax((2, 3))), 1)
        features = self.neck(pooled)
        return Predictions(
            self.kind(features), self.colour(features), self.style(features), features
        )


def single_scenes(seed: int, count: int, *, posed: bool = False) -> list[Scene]:
    """Return scenes of one thing each."""
    return [draw_scene(seed + n, max_things=1, posed=posed) for n in range(count)]


@torch.no_grad()
def labelled_renders(
    seed: int, scenes: int, device: torch.device, shape: Shape = SQUARE
) -> LabelledRenders:
    """Render single things in four random styles each, with their labels."""
    images, kinds, colours, styles = [], [], [], []
    rng = torch.Generator().manual_seed(seed)
    all_scenes = single_scenes(seed, scenes)
    desc = f"renders of {shape[0]} x {shape[1]} for the classifier"
    for start in tqdm(range(0, scenes, 16), desc=desc, mininterval=5):
        batch = all_scenes[start : start + 16]
        planes = rasterise(batch, shape, device)
        for index in torch.randperm(len(STYLES), generator=rng)[:4].tolist():
            images.append((STYLE_RENDERERS[STYLES[index]](planes) * 255).round().byte())
            kinds += [KINDS.index(s.things[0].kind) for s in batch]
            colours += [
                NO_LABEL if index == COLOURLESS else COLOUR_NAMES.index(s.things[0].colour)
                for s in batch
            ]
            styles += [index] * len(batch)
    labels = (torch.tensor(values, device=device) for values in (kinds, colours, styles))
    return LabelledRenders(torch.cat(images), *labels)


def augment(images: Tensor) -> Tensor:
    """Return float images with noise and blur like an autoencoder's, in another place."""
    x = images.float() / 255
    if torch.rand(()) < 0.5:
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    gain = 1 + 0.06 * torch.randn(len(x), 3, 1, 1, device=x.device)
    x = x * gain + 0.03 * torch.randn_like(x)
    dx, dy = torch.randint(-8, 9, (2,)).tolist()
    return x.roll((dy, dx), (2, 3)).clamp(0, 1)


class ClassifierRun:
    """A classifier's training, from nothing."""

    name = "classifier"

    def __init__(self, folder: Path, device: torch.device, scenes: int, rate: float) -> None:
        self.path, self.rate, self.seen = classifier_path(folder), rate, 0
        torch.manual_seed(0)
        self.device, self.classifier = device, Classifier().to(device)
        wide = round(scenes * WIDE_SHARE / len(WIDE))
        self.squares = labelled_renders(TRAIN_SEEDS, scenes - wide * len(WIDE), device)
        self.wide = [
            labelled_renders(TRAIN_SEEDS + scenes * (n + 1), wide, device, shape)
            for n, shape in enumerate(WIDE)
        ]
        self.average = MovingAverage(self.classifier)
        self.optimizer = torch.optim.AdamW(self.classifier.parameters(), weight_decay=0.02)

    def step(self, factor: float) -> Tensor:
        data = self.squares
        if torch.rand(()) < WIDE_SHARE:
            data = self.wide[int(torch.randint(len(self.wide), ()))]
        index = torch.randint(len(data.images), (BATCH_SIZE,), device=self.device)
        images = augment(data.images[index])
        with mixed(self.device):
            predicted = self.classifier(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(predicted.kind.float(), data.kind[index])
        loss = loss + F.cross_entropy(predicted.style.float(), data.style[index])
        if (data.colour[index] != NO_LABEL).any():
            loss = loss + F.cross_entropy(predicted.colour.float(), data.colour[index])
        rate = self.rate * factor
        optimizer_step(loss, self.optimizer, self.classifier, rate, max_norm=math.inf)
        self.average.update(self.classifier)
        self.seen += BATCH_SIZE
        return loss

    def save(self) -> None:
        save_state(self.path, self.average.tensors)


def classifier_path(folder: Path) -> Path:
    return folder / "classifier.safetensors"


def train_classifier(
    folder: Path, *, device: torch.device, minutes: float, scenes: int = 3000, rate: float = 2e-3
) -> None:
    """Train a classifier for `minutes` and write it to `folder`."""
    run = ClassifierRun(folder, device, scenes, rate)
    fit(run, Budget(minutes, warmup_steps=50, decay=0.6), save_every=1000)


def load_classifier(folder: Path) -> Classifier:
    classifier = Classifier()
    classifier.load_state_dict(load_state(classifier_path(folder))[0])
    return classifier.eval().requires_grad_(False)  # noqa: FBT003 - torch's own signature


@torch.no_grad()
def held_out_accuracy(
    classifier: Classifier, scenes: int = 160, shapes: Sequence[Shape] = (SQUARE,)
) -> dict[str, float]:
    """Return the accuracy by attribute on true renders of held-out scenes, a mean over shapes."""
    shares: dict[str, float] = {"kind": 0, "colour": 0, "style": 0}
    for shape in shapes:
        count = max(1, scenes // len(shapes))
        data = labelled_renders(HELD_OUT_SEEDS, count, torch.device("cpu"), shape)
        predicted = [classifier(x.float() / 255) for x in torch.split(data.images, 64)]
        for name in shares:
            labels = getattr(data, name)
            classes = torch.cat([getattr(p, name) for p in predicted]).argmax(1)
            is_right = (classes == labels)[labels != NO_LABEL]
            shares[name] += is_right.float().mean().item() / len(shapes)
    return shares
