"""The drawn world: scenes, their renders and their captions."""

from __future__ import annotations

import pytest
import torch

from models.styles.presets import load_styles
from models.training.evaluation.classifier import single_scenes
from models.training.scenes.captions import caption, describe
from models.training.scenes.palette import COLOUR_NAMES
from models.training.scenes.renderers import DOODLE, PAINTERS, render
from models.training.scenes.scene import KINDS, PLACES, Scene, Thing, draw_scene
from models.training.scenes.shapes import SHAPES

STYLES = (*PAINTERS, DOODLE)


def test_every_style_of_the_api_has_a_painter() -> None:
    """The painters and the rows of styles.toml are the same names."""
    assert set(PAINTERS) == set(load_styles())
    assert set(SHAPES) == set(KINDS)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(64, 64), (64, 80), (128, 64)])
def test_a_render_is_a_picture(style: str, size: tuple[int, int]) -> None:
    """Every style gives finite [B, 3, H, W] in 0..1, in every shape, and not one flat colour."""
    pictures = render([draw_scene(n) for n in range(3)], style, size)
    assert pictures.shape == (3, 3, *size)
    assert pictures.dtype == torch.float32
    assert torch.isfinite(pictures).all()
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert (pictures.std((1, 2, 3)) > 0.01).all()


def test_the_ink_sketch_has_no_colour() -> None:
    """SKETCH_BW is grey in every pixel."""
    pictures = render([draw_scene(n) for n in range(6)], "SKETCH_BW", (64, 64))
    assert (pictures.amax(1) - pictures.amin(1)).max() == 0


def test_a_seed_names_a_scene() -> None:
    """The same seed gives the same scene, words and pixels, whatever else is in the batch."""
    assert draw_scene(7) == draw_scene(7)
    assert caption(draw_scene(7), "ANIME") == caption(draw_scene(7), "ANIME")
    alone = render([draw_scene(7)], "FANTASY_ART", (64, 64))
    among = render([draw_scene(3), draw_scene(7), draw_scene(9)], "FANTASY_ART", (64, 64))
    torch.testing.assert_close(alone[0], among[1])


def test_the_world_is_wide() -> None:
    """All kinds, colours and places turn up, with one to three things."""
    scenes = [draw_scene(n) for n in range(600)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {t.kind for t in things} == set(KINDS)
    assert {t.colour for t in things} == set(COLOUR_NAMES)
    assert {s.place for s in scenes} == set(PLACES)
    assert {len(s.things) for s in scenes} == {1, 2, 3}


def test_captions_name_what_is_drawn() -> None:
    """Nearly every caption of a single thing says its colour, and says no other thing's kind."""
    named = 0
    scenes = [s for s in single_scenes(0, 400) if s.place != "plain"]
    for scene in scenes:
        words = describe(scene).replace("gray", "grey").replace(",", "").split()
        named += scene.things[0].colour in words
        others = set(KINDS) - {scene.things[0].kind}
        assert not others & set(words), words
    assert named > 0.85 * len(scenes)


@pytest.mark.parametrize("style", load_styles())
def test_captions_are_joined_by_the_very_templates(style: str) -> None:
    """A caption in a style is the service's template around the words."""
    scene = draw_scene(5)
    assert caption(scene, style) == load_styles()[style].apply(describe(scene))


def test_relations_hold_in_the_picture() -> None:
    """Of two things "left of" and "above" stand as said, front to back."""
    for scene in (draw_scene(n) for n in range(400)):
        if scene.relation == "left":
            assert scene.things[1].x < scene.things[0].x
        if scene.relation == "above":
            assert scene.things[1].y < scene.things[0].y


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_shows_its_colour(kind: str) -> None:
    """A red thing on white is red in a fair share of the middle and of its doodle."""
    scene = Scene("plain", (Thing(kind, "red", 0.5, 0.5, 0.4),), 2)
    for style in ("NONE", DOODLE):
        red, green, blue = render([scene], style, (64, 64))[0]
        assert ((red > green + 0.3) & (red > blue + 0.3)).float().mean() > 0.05


def test_a_posed_scene_shows_the_same_where_one_expects_it() -> None:
    """Posed things of a kind lie within a third of the span that loose ones lie in."""
    spans = []
    for is_posed in (False, True):
        boats = [
            scene.things[0]
            for scene in (draw_scene(seed, 1, posed=is_posed) for seed in range(2000))
            if scene.things[0].kind == "boat"
        ]
        spans.append(max(boat.y for boat in boats) - min(boat.y for boat in boats))
    assert spans[1] < spans[0] / 3
