"""Scenes and their random sampling. Knows no tensors, styles or captions.

A scene is a place and one to three things. Positions are fractions of the frame (x to the right, y
down), sizes are fractions of its shorter side: a scene fits every shape.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from models.training.scenes.palette import COLOUR_NAMES

KINDS = (
    "circle", "square", "triangle", "star", "heart", "house", "tree", "mountain",
    "sun", "moon", "cloud", "flower", "boat", "fish", "car", "mushroom",
)  # fmt: skip
PLACES = ("sky", "sea", "meadow", "desert", "night", "snow", "room", "plain")
RELATIONS = ("left", "above", "front")

# Usual ranges of y of some kinds; other kinds may be anywhere.
_HIGH = {"sun": (0.2, 0.45), "moon": (0.2, 0.45), "cloud": (0.2, 0.45)}
_STANDING = {"house", "tree", "mountain", "flower", "boat", "car", "mushroom"}
_SIMPLE = {"circle", "square", "triangle", "star", "heart"}
POSED_SPREAD = 0.25  # of the full ranges of position and size, in a posed scene
# Colours that a place would hide.
_HIDDEN = {"snow": {"white"}, "night": {"black"}, "sky": {"white"}}


@dataclass(frozen=True)
class Thing:
    """One thing. `size` is its radius as a fraction of the frame's shorter side."""

    kind: str
    colour: str
    x: float
    y: float
    size: float
    tilt: float = 0.0  # radians


@dataclass(frozen=True)
class Scene:
    """Things from back to front in a place; `relation` is that of things[0] to things[1].

    `ground` is the colour of a plain place, `horizon` a fraction of the height, `light` the side
    of the lamp (-1 left, 1 right). `seed` seeds noise and textures, `words` the caption's wording.
    """

    place: str
    things: tuple[Thing, ...]
    seed: int
    relation: str = ""
    ground: str = "white"
    horizon: float = 0.6
    light: float = -1.0
    words: int = field(default=0, compare=False)


class _SceneRandom(random.Random):
    """Random numbers of a scene; `spread` narrows the ranges of positions and sizes."""

    spread = 1.0

    @property
    def is_loose(self) -> bool:
        return self.spread == 1.0

    def near(self, low: float, high: float) -> float:
        """Return a number from the middle part of a range, `spread` of it."""
        middle = (low + high) / 2
        return middle + (self.uniform(low, high) - middle) * self.spread


def _single(rng: _SceneRandom, place: str, ground: str) -> Thing:
    kind = rng.choice(KINDS)
    size = rng.near(0.2, 0.37)
    x, y = rng.near(0.33, 0.67), rng.near(0.38, 0.62)
    if rng.random() < 0.55 or not rng.is_loose:
        if kind in _HIGH:
            y = rng.near(*_HIGH[kind])
            size *= 0.85
        elif kind in _STANDING:
            y = rng.near(0.5, 0.68)
    tilt = rng.gauss(0, 0.12) if kind in _SIMPLE or kind == "fish" else rng.gauss(0, 0.03)
    hidden = {ground} if place == "plain" else _HIDDEN.get(place, set())
    colour = rng.choice([name for name in COLOUR_NAMES if name not in hidden])
    return Thing(kind, colour, x, y, size, tilt * rng.spread)


def _moved(thing: Thing, x: float, y: float, size: float) -> Thing:
    return Thing(thing.kind, thing.colour, x, y, size, thing.tilt)


def _pair(rng: _SceneRandom, first: Thing, second: Thing, relation: str) -> tuple[Thing, ...]:
    """Place two things so that `first` is left of, above or in front of `second`."""
    a, b = rng.near(0.14, 0.21), rng.near(0.14, 0.21)
    if relation == "left":
        y = rng.near(0.4, 0.62)
        ends = (rng.near(0.2, 0.3), y), (rng.near(0.7, 0.8), y + rng.near(-0.08, 0.08))
    elif relation == "above":
        x = rng.near(0.35, 0.65)
        ends = (x, rng.near(0.22, 0.3)), (x + rng.near(-0.1, 0.1), rng.near(0.68, 0.76))
    else:  # in front: the first is smaller and lower
        side = rng.choice((-1, 1)) if rng.is_loose else -1
        b = rng.near(0.28, 0.36)
        ends = (0.5 + side * rng.near(0.12, 0.2), 0.68), (0.5 - side * 0.06, 0.46)
    return (_moved(second, *ends[1], b), _moved(first, *ends[0], a))


def draw_scene(seed: int, max_things: int = 3, *, posed: bool = False) -> Scene:
    """Return the scene of a seed.

    In a `posed` scene every thing has its usual size and position. A caption does not say where
    things are: from a caption alone a net can only learn the mean of loose scenes, a blur in which
    a star looks like a house.
    """
    rng = _SceneRandom(seed)
    rng.spread = POSED_SPREAD if posed else 1.0
    place = rng.choice(PLACES)
    ground = "white" if rng.random() < 0.4 else rng.choice(COLOUR_NAMES)
    count = min(max_things, rng.choices((1, 2, 3), (0.7, 0.22, 0.08))[0])
    first = _single(rng, place, ground)
    things: tuple[Thing, ...] = (first,)
    relation = ""
    if count == 2:
        second = _single(rng, place, ground)
        if rng.random() < 0.35:  # "two boats", side by side
            relation, second = "twins", first
            things = _pair(rng, first, second, "left")
        else:
            relation = rng.choice(RELATIONS)
            things = _pair(rng, first, second, relation)
    elif count == 3:  # two of a kind under or over another
        second = _single(rng, place, ground)
        relation = "under"
        over = _moved(second, rng.near(0.35, 0.65), rng.near(0.2, 0.26), 0.14)
        pair = _pair(rng, first, first, "left")
        things = (over, *(_moved(t, t.x, t.y * 0.4 + 0.45, 0.17) for t in pair))
    return Scene(
        place=place,
        things=things,
        seed=seed,
        relation=relation,
        ground=ground,
        horizon=rng.near(0.55, 0.7),
        light=rng.choice((-1.0, 1.0)) if rng.is_loose else -1.0,
        words=rng.randrange(1 << 30),
    )
