"""What the measures of models/pocket share: the table's rows, the scenes asked for, masks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.styles.presets import load_styles
from models.training.evaluation.classifier import HELD_OUT_SEEDS, Judge, single_scenes
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.scene import KINDS, Scene, draw_scene

GUIDANCE = 6.0


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, what was reached, what was wanted."""

    measure: str
    value: str
    target: str
    least: str


@dataclass
class Bench:
    """What the measures work with. `count` scales how many pictures each one makes."""

    folder: Path
    work: Path
    pipeline: Any
    judge: Judge
    count: int
    own: dict[str, float] = field(default_factory=dict)  # how often the judge is right
    own_wide: dict[str, float] = field(default_factory=dict)  # and where no picture is square


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def grey_canvas(count: int, shape: tuple[int, int] = (512, 512)) -> Tensor:
    return torch.full((count, 3, *shape), 0.5)


def asked_scenes(count: int, seed: int) -> list[Scene]:
    """Return single things with colours that differ from their places, every kind in turn."""
    scenes = single_scenes(HELD_OUT_SEEDS + seed, count)
    things = [
        replace(s.things[0], kind=KINDS[n % len(KINDS)], size=max(s.things[0].size, 0.26))
        for n, s in enumerate(scenes)
    ]
    return [replace(s, things=(t,)) for s, t in zip(scenes, things, strict=True)]


def drawn_again(scene: Scene, seed: int) -> Scene:
    """Return a posed scene with its thing as another scene poses one of that kind."""
    others = (draw_scene(seed + n, max_things=1, posed=True) for n in itertools.count())
    thing = scene.things[0]
    other = next(s for s in others if s.things[0].kind == thing.kind)
    moved = replace(other.things[0], colour=thing.colour)
    return replace(scene, things=(moved,), seed=other.seed, horizon=other.horizon)


def prompt_for(scene: Scene, style: str = "NONE") -> str:
    """Return a plain prompt that names colour, kind and place, in a style."""
    thing = scene.things[0]
    where = {"plain": f"on a plain {scene.ground} background", "sea": "at sea", "night": "at night"}
    words = f"a {thing.colour} {thing.kind} " + where.get(scene.place, f"in the {scene.place}")
    return load_styles()[style].apply(words)


def truth(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    kinds = torch.tensor([KINDS.index(s.things[0].kind) for s in scenes])
    colours = torch.tensor([COLOUR_NAMES.index(s.things[0].colour) for s in scenes])
    return kinds, colours


def right(bench: Bench, pictures: Tensor, scenes: list[Scene]) -> tuple[float, float]:
    """Return the shares of pictures whose kind and whose colour are as asked."""
    kinds, colours = truth(scenes)
    verdict = bench.judge(pictures)
    kind_right = (verdict.kind.argmax(1) == kinds).float().mean().item()
    return kind_right, (verdict.colour.argmax(1) == colours).float().mean().item()


def saturation_of(pictures: Tensor) -> float:
    """Return the mean saturation of HSV, (max - min) / max."""
    high, low = pictures.amax(1), pictures.amin(1)
    return ((high - low) / high.clamp_min(1e-3)).mean().item()


def mask_of(picture: Tensor) -> Tensor:
    """Return where [H, W] a picture on a plain ground differs from its border's colour."""
    rim = torch.cat((picture[:, :8].flatten(1), picture[:, -8:].flatten(1)), 1)
    ground = rim.median(1).values[:, None, None]
    return (picture - ground).abs().amax(0) > 0.16
