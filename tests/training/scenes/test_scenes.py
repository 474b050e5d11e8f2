"""Scenes, their renders and their captions."""

from __future__ import annotations

import pytest
import torch

from models.styles.presets import load_styles
from models.training.evaluation.classifier import single_scenes
from models.training.scenes.captions import caption, describe
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.renderers import ALL_STYLES, DOODLE, STYLE_RENDERERS, render
from models.training.scenes.scene import KINDS, PLACES, Scene, Thing, draw_scene
from models.training.scenes.shapes import SHAPES


def test_every_style_has_a_renderer() -> None:
    """The renderers and styles.toml have the same styles, the shapes all kinds."""
    assert set(STYLE_RENDERERS) == set(load_styles())
    assert set(SHAPES) == set(KINDS)


@pytest.mark.parametrize("style", ALL_STYLES)
@pytest.mark.parametrize("size", [(64, 64), (64, 80), (128, 64)])
def test_render(style: str, size: tuple[int, int]) -> None:
    """A style gives finite [B, 3, H, W] in 0..1, in every shape, and not one flat colour."""
    images = render([draw_scene(n) for n in range(3)], style, size)
    assert images.shape == (3, 3, *size)
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.std((1, 2, 3)) > 0.01).all()


def test_ink_sketch_is_grey() -> None:
    """SKETCH_BW is grey in every pixel."""
    images = render([draw_scene(n) for n in range(6)], "SKETCH_BW", (64, 64))
    assert (images.amax(1) - images.amin(1)).max() == 0


def test_seeds_are_reproducible() -> None:
    """A seed gives the same scene, caption and pixels, in any batch."""
    assert draw_scene(7) == draw_scene(7)
    assert caption(draw_scene(7), "ANIME") == caption(draw_scene(7), "ANIME")
    single = render([draw_scene(7)], "FANTASY_ART", (64, 64))
    batch = render([draw_scene(3), draw_scene(7), draw_scene(9)], "FANTASY_ART", (64, 64))
    torch.testing.assert_close(single[0], batch[1])


def test_variety() -> None:
    """Scenes have all kinds, colours and places, and one to three things."""
    scenes = [draw_scene(n) for n in range(600)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {t.kind for t in things} == set(KINDS)
    assert {t.colour for t in things} == set(COLOUR_NAMES)
    assert {s.place for s in scenes} == set(PLACES)
    assert {len(s.things) for s in scenes} == {1, 2, 3}


def test_captions() -> None:
    """Nearly every caption of a single thing has its colour, and none has another kind."""
    with_colour = 0
    scenes = [s for s in single_scenes(0, 400) if s.place != "plain"]
    for scene in scenes:
        words = describe(scene).replace("gray", "grey").replace(",", "").split()
        with_colour += scene.things[0].colour in words
        others = set(KINDS) - {scene.things[0].kind}
        assert not others & set(words), words
    assert with_colour > 0.85 * len(scenes)


@pytest.mark.parametrize("style", load_styles())
def test_captions_use_the_style_templates(style: str) -> None:
    """A caption in a style is the service's template applied to the description."""
    scene = draw_scene(5)
    assert caption(scene, style) == load_styles()[style].apply(describe(scene))


def test_relations() -> None:
    """Of two things, back to front, "left" and "above" hold in the positions."""
    for scene in (draw_scene(n) for n in range(400)):
        if scene.relation == "left":
            assert scene.things[1].x < scene.things[0].x
        if scene.relation == "above":
            assert scene.things[1].y < scene.things[0].y


@pytest.mark.parametrize("kind", KINDS)
def test_things_have_their_colour(kind: str) -> None:
    """A red thing on white has a share of red pixels, in a render and in a doodle."""
    scene = Scene("plain", (Thing(kind, "red", 0.5, 0.5, 0.4),), 2)
    for style in ("NONE", DOODLE):
        red, green, blue = render([scene], style, (64, 64))[0]
        assert ((red > green + 0.3) & (red > blue + 0.3)).float().mean() > 0.05


def test_posed_scenes() -> None:
    """The positions of posed things span less than a third of those of loose ones."""
    spans = []
    for is_posed in (False, True):
        boats = [
            scene.things[0]
            for scene in (draw_scene(seed, 1, posed=is_posed) for seed in range(2000))
            if scene.things[0].kind == "boat"
        ]
        spans.append(max(boat.y for boat in boats) - min(boat.y for boat in boats))
    assert spans[1] < spans[0] / 3
