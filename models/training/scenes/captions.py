"""Plain English for a scene, with varied wording, joined by the templates of styles.toml."""

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


def _name(lot: random.Random, kind: str) -> str:
    if kind in _OTHER_NAMES and lot.random() < 0.3:
        return lot.choice(_OTHER_NAMES[kind])
    return kind


def _colour_word(lot: random.Random, colour: str) -> str:
    return "gray" if colour == "grey" and lot.random() < 0.3 else colour


def _one(lot: random.Random, thing: Thing, *, sized: bool = True) -> str:
    """Return "a red heart", seldom without its colour, at times with its size."""
    words = _name(lot, thing.kind)
    if lot.random() < 0.94:
        words = f"{_colour_word(lot, thing.colour)} {words}"
    if sized and lot.random() < 0.3:
        words = lot.choice(next(w for limit, w in _SIZES if thing.size < limit)) + words
    if lot.random() < 0.12:
        return words
    article = "an" if words[0] in "aeiou" else "a"
    return f"{'the' if lot.random() < 0.08 else article} {words}"


def _two(lot: random.Random, thing: Thing) -> str:
    name = _name(lot, thing.kind)
    return f"two {_colour_word(lot, thing.colour)} {_PLURALS.get(name, name + 's')}"


def _things(lot: random.Random, scene: Scene) -> str:
    if scene.relation == "twins":
        return _two(lot, scene.things[0])
    if scene.relation == "under":
        over, under = _one(lot, scene.things[0], sized=False), _two(lot, scene.things[-1])
        return f"{under} {lot.choice(('under', 'below', 'beneath'))} {over}"
    if scene.relation:
        back, front = (_one(lot, t, sized=False) for t in scene.things)
        if lot.random() < 0.2:
            return f"{front} and {back}"
        return f"{front} {lot.choice(_RELATIONS[scene.relation])} {back}"
    return _one(lot, scene.things[0])


def _where(lot: random.Random, scene: Scene) -> str:
    if scene.place == "plain":
        ground = _colour_word(lot, scene.ground)
        return lot.choice(_PLAIN).format(ground)
    return lot.choice(_WHERE[scene.place])


def describe(scene: Scene) -> str:
    """Return the caption of a scene, without a style. The same scene, the same words."""
    lot = random.Random(scene.words)  # noqa: S311 - wording, not secrets
    things, where = _things(lot, scene), _where(lot, scene)
    form = lot.random()
    if form < 0.1:
        return things
    if form < 0.18:
        return f"{things}, {where}"
    if form < 0.24:
        return f"a picture of {things} {where}"
    return f"{things} {where}"


def caption(scene: Scene, style: str) -> str:
    """Return the whole prompt of a scene in a style of the API, or as a doodle."""
    words = describe(scene)
    if style == DOODLE:
        return f"a doodle of {words}"
    return load_styles()[style].apply(words)
