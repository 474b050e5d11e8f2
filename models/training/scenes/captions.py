"""Captions of scenes in varied wording, joined with the templates of styles.toml."""

from __future__ import annotations

import random

from models.styles.presets import load_styles
from models.training.scenes.renderers import DOODLE
from models.training.scenes.scene import Scene, Thing

_OTHER_NAMES = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "boat": ("boat", "sailing boat", "ship"),
    "car": ("car", "small car"),
    "mountain": ("mountain", "mountain peak"),
    "moon": ("moon", "crescent moon"),
    "house": ("house", "cottage"),
}
_PLURALS = {"fish": "fish", "box": "boxes"}
_WHERE = {
    "sky": ("in the sky", "in a blue sky", "high in the sky", "against a bright sky"),
    "sea": ("at sea", "on the sea", "by the sea", "on the water", "at the blue sea"),
    "meadow": ("in a meadow", "in a green meadow", "on the grass", "on green grass"),
    "desert": ("in the desert", "on the sand", "in a sandy desert", "among the dunes"),
    "night": ("at night", "in the night", "under the night sky", "under the stars"),
    "snow": ("in the snow", "on a snowy field", "in winter snow", "in a snowy place"),
    "room": ("in a room", "inside a room", "on a wooden floor", "indoors in a room"),
}
_PLAIN = (
    "on a plain {} background",
    "on a {} background",
    "on plain {}",
    "on {}",
    "in front of a {} wall",
)
_RELATIONS = {
    "left": ("to the left of", "left of", "next to", "beside"),
    "above": ("above", "over", "on top of"),
    "front": ("in front of", "before", "standing in front of"),
}
_SIZES = ((0.24, ("small ", "little ", "")), (0.33, ("",)), (1.0, ("big ", "large ", "")))


def _name(rng: random.Random, kind: str) -> str:
    if kind in _OTHER_NAMES and rng.random() < 0.3:
        return rng.choice(_OTHER_NAMES[kind])
    return kind


def _colour_word(rng: random.Random, colour: str) -> str:
    return "gray" if colour == "grey" and rng.random() < 0.3 else colour


def _one(rng: random.Random, thing: Thing, *, sized: bool = True) -> str:
    """Return "a red heart", rarely without the colour, sometimes with the size."""
    words = _name(rng, thing.kind)
    if rng.random() < 0.94:
        words = f"{_colour_word(rng, thing.colour)} {words}"
    if sized and rng.random() < 0.3:
        words = rng.choice(next(w for limit, w in _SIZES if thing.size < limit)) + words
    if rng.random() < 0.12:
        return words
    article = "an" if words[0] in "aeiou" else "a"
    return f"{'the' if rng.random() < 0.08 else article} {words}"


def _two(rng: random.Random, thing: Thing) -> str:
    name = _name(rng, thing.kind)
    return f"two {_colour_word(rng, thing.colour)} {_PLURALS.get(name, name + 's')}"


def _things(rng: random.Random, scene: Scene) -> str:
    if scene.relation == "twins":
        return _two(rng, scene.things[0])
    if scene.relation == "under":
        over, under = _one(rng, scene.things[0], sized=False), _two(rng, scene.things[-1])
        return f"{under} {rng.choice(('under', 'below', 'beneath'))} {over}"
    if scene.relation:
        back, front = (_one(rng, t, sized=False) for t in scene.things)
        if rng.random() < 0.2:
            return f"{front} and {back}"
        return f"{front} {rng.choice(_RELATIONS[scene.relation])} {back}"
    return _one(rng, scene.things[0])


def describe(scene: Scene) -> str:
    """Return the caption of a scene without a style; a scene has one caption."""
    rng = random.Random(scene.words)  # noqa: S311 - wording, not secrets
    things = _things(rng, scene)
    if scene.place == "plain":
        ground = _colour_word(rng, scene.ground)
        where = rng.choice(_PLAIN).format(ground)
    else:
        where = rng.choice(_WHERE[scene.place])
    form = rng.random()
    if form < 0.1:
        return things
    if form < 0.18:
        return f"{things}, {where}"
    if form < 0.24:
        return f"a picture of {things} {where}"
    return f"{things} {where}"


def caption(scene: Scene, style: str) -> str:
    """Return the prompt of a scene in a style of the API, or as a doodle."""
    words = describe(scene)
    if style == DOODLE:
        return f"a doodle of {words}"
    return load_styles()[style].apply(words)
