"""What a scene is, and how one is drawn by lot. Knows no tensor, no style and no words.

A scene is a place and one to three things. Positions are fractions of the frame (x to the
right, y down), sizes are fractions of its shorter side, so that a scene fits every shape.
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

# Where a kind is at home, as a range of y for its middle; other kinds float anywhere.
_HIGH = {"sun": (0.2, 0.45), "moon": (0.2, 0.45), "cloud": (0.2, 0.45)}
_STANDING = {"house", "tree", "mountain", "flower", "boat", "car", "mushroom"}
_SIMPLE = {"circle", "square", "triangle", "star", "heart"}
POSED_SPREAD = 0.25  # of the ranges that positions and sizes of a posed scene are drawn from
# A thing must stand out from its place.
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
    """Things from back to front in a place; `relation` is of things[0] to things[1].

    `ground` is the colour of a plain place, `horizon` a fraction of the height, `light` the
    side it falls from (-1 left, 1 right), and `seed` feeds noise and textures.
    """

    place: str
    things: tuple[Thing, ...]
    seed: int
    relation: str = ""
    ground: str = "white"
    horizon: float = 0.6
    light: float = -1.0
    words: int = field(default=0, compare=False)  # the lot of the caption's wording


class _Lot(random.Random):
    """Draws what a scene is; `spread` narrows the ranges of where its things are."""

    spread = 1.0

    @property
    def is_loose(self) -> bool:
        return self.spread == 1.0

    def near(self, low: float, high: float) -> float:
        """Return a number of the middle part of a range."""
        middle = (low + high) / 2
        return middle + (self.uniform(low, high) - middle) * self.spread


def _colour(lot: _Lot, place: str, ground: str) -> str:
    hidden = {ground} if place == "plain" else _HIDDEN.get(place, set())
    if place == "plain" and ground == "white":
        hidden = hidden | {"white"}
    return lot.choice([name for name in COLOUR_NAMES if name not in hidden])


def _single(lot: _Lot, place: str, ground: str) -> Thing:
    kind = lot.choice(KINDS)
    size = lot.near(0.2, 0.37)
    x, y = lot.near(0.33, 0.67), lot.near(0.38, 0.62)
    if lot.random() < 0.55 or not lot.is_loose:
        if kind in _HIGH:
            y = lot.near(*_HIGH[kind])
            size *= 0.85
        elif kind in _STANDING:
            y = lot.near(0.5, 0.68)
    tilt = lot.gauss(0, 0.12) if kind in _SIMPLE or kind == "fish" else lot.gauss(0, 0.03)
    return Thing(kind, _colour(lot, place, ground), x, y, size, tilt * lot.spread)


def _moved(thing: Thing, x: float, y: float, size: float) -> Thing:
    return Thing(thing.kind, thing.colour, x, y, size, thing.tilt)


def _pair(lot: _Lot, first: Thing, second: Thing, relation: str) -> tuple[Thing, ...]:
    """Place two things so that `first` is left of, above or in front of `second`."""
    a, b = lot.near(0.14, 0.21), lot.near(0.14, 0.21)
    if relation == "left":
        y = lot.near(0.4, 0.62)
        ends = (lot.near(0.2, 0.3), y), (lot.near(0.7, 0.8), y + lot.near(-0.08, 0.08))
    elif relation == "above":
        x = lot.near(0.35, 0.65)
        ends = (x, lot.near(0.22, 0.3)), (x + lot.near(-0.1, 0.1), lot.near(0.68, 0.76))
    else:  # in front: the second is large and behind, the first small and lower
        side = lot.choice((-1, 1)) if lot.is_loose else -1
        b = lot.near(0.28, 0.36)
        ends = (0.5 + side * lot.near(0.12, 0.2), 0.68), (0.5 - side * 0.06, 0.46)
    return (_moved(second, *ends[1], b), _moved(first, *ends[0], a))


def draw_scene(seed: int, max_things: int = 3, *, posed: bool = False) -> Scene:
    """Return the scene of a seed: the same seed, the same scene.

    In a `posed` one everything has its usual size and stands where it usually stands. A caption
    does not say where things are: of loose scenes, all that can be learned from a caption alone is
    their mean, a blur in which a star looks like a house.
    """
    lot = _Lot(seed)
    lot.spread = POSED_SPREAD if posed else 1.0
    place = lot.choice(PLACES)
    ground = "white" if lot.random() < 0.4 else lot.choice(COLOUR_NAMES)
    count = min(max_things, lot.choices((1, 2, 3), (0.7, 0.22, 0.08))[0])
    first = _single(lot, place, ground)
    things: tuple[Thing, ...] = (first,)
    relation = ""
    if count == 2:
        second = _single(lot, place, ground)
        if lot.random() < 0.35:  # "two boats": the same thing twice, side by side
            relation, second = "twins", first
            things = _pair(lot, first, second, "left")
        else:
            relation = lot.choice(RELATIONS)
            things = _pair(lot, first, second, relation)
    elif count == 3:  # two of a kind under or over another
        second = _single(lot, place, ground)
        relation = "under"
        over = _moved(second, lot.near(0.35, 0.65), lot.near(0.2, 0.26), 0.14)
        pair = _pair(lot, first, first, "left")
        things = (over, *(_moved(t, t.x, t.y * 0.4 + 0.45, 0.17) for t in pair))
    return Scene(
        place=place,
        things=things,
        seed=seed,
        relation=relation,
        ground=ground,
        horizon=lot.near(0.55, 0.7),
        light=lot.choice((-1.0, 1.0)) if lot.is_loose else -1.0,
        words=lot.randrange(1 << 30),
    )
