"""The inputs of the metrics: scenes, prompts, canvases; masks and colours of images."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.styles.presets import load_styles
from models.training.evaluation.classifier import HELD_OUT_SEEDS, Classifier, single_scenes
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.scene import KINDS, Scene, draw_scene

GUIDANCE = 6.0


@dataclass
class Evaluation:
    """What the metrics need. `count` scales the number of images of each."""

    folder: Path
    work: Path
    pipeline: Any
    classifier: Classifier
    count: int
    url: str = ""  # of a service that runs on `folder`
    accuracy: dict[str, float] = field(default_factory=dict)  # of the classifier
    wide_accuracy: dict[str, float] = field(default_factory=dict)  # on shapes that are not square


def grey_canvas(count: int, shape: tuple[int, int] = (512, 512)) -> Tensor:
    return torch.full((count, 3, *shape), 0.5)


def held_out_scenes(count: int, seed: int) -> list[Scene]:
    """Return scenes of one large thing, with all kinds in turn."""
    scenes = single_scenes(HELD_OUT_SEEDS + seed, count)
    things = [
        replace(s.things[0], kind=KINDS[n % len(KINDS)], size=max(s.things[0].size, 0.26))
        for n, s in enumerate(scenes)
    ]
    return [replace(s, things=(t,)) for s, t in zip(scenes, things, strict=True)]


def redraw(scene: Scene, seed: int) -> Scene:
    """Return a posed scene with its thing in the pose of another scene's thing of that kind."""
    others = (draw_scene(seed + n, max_things=1, posed=True) for n in itertools.count())
    thing = scene.things[0]
    other = next(s for s in others if s.things[0].kind == thing.kind)
    moved = replace(other.things[0], colour=thing.colour)
    return replace(scene, things=(moved,), seed=other.seed, horizon=other.horizon)


def other_colour(scene: Scene, number: int) -> str:
    """Return another colour for a scene's thing, which is not the background's either."""
    used = {scene.things[0].colour, scene.ground, "white", "black"}
    free = [name for name in COLOUR_NAMES if name not in used]
    return free[number % len(free)]


def prompt_for(scene: Scene, style: str = "NONE") -> str:
    """Return a plain prompt with colour, kind and place, in a style."""
    thing = scene.things[0]
    where = {"plain": f"on a plain {scene.ground} background", "sea": "at sea", "night": "at night"}
    words = f"a {thing.colour} {thing.kind} " + where.get(scene.place, f"in the {scene.place}")
    return load_styles()[style].apply(words)


def labels_of(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    kinds = torch.tensor([KINDS.index(s.things[0].kind) for s in scenes])
    colours = torch.tensor([COLOUR_NAMES.index(s.things[0].colour) for s in scenes])
    return kinds, colours


def adherence(classifier: Classifier, images: Tensor, scenes: list[Scene]) -> tuple[float, float]:
    """Return the shares of images with the kind and with the colour of their scenes."""
    kinds, colours = labels_of(scenes)
    predicted = classifier(images)
    kind_share = (predicted.kind.argmax(1) == kinds).float().mean().item()
    return kind_share, (predicted.colour.argmax(1) == colours).float().mean().item()


def mean_saturation(images: Tensor) -> float:
    """Return the mean saturation of HSV, (max - min) / max."""
    high, low = images.amax(1), images.amin(1)
    return ((high - low) / high.clamp_min(1e-3)).mean().item()


def thing_mask(image: Tensor) -> Tensor:
    """Return where [H, W] an image on a plain ground differs from the colour of its border."""
    border = torch.cat((image[:, :8].flatten(1), image[:, -8:].flatten(1)), 1)
    ground = border.median(1).values[:, None, None]
    return (image - ground).abs().amax(0) > 0.16
