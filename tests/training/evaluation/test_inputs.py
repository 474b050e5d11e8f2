"""The inputs of the metrics: masks, saturation, scenes and prompts."""

from __future__ import annotations

import pytest
import torch

from models.training.evaluation.inputs import (
    grey_canvas,
    held_out_scenes,
    mean_saturation,
    prompt_for,
    redraw,
    thing_mask,
)
from models.training.scenes.renderers import DOODLE, render
from models.training.scenes.scene import KINDS, Scene, Thing, draw_scene


def test_thing_mask() -> None:
    """A square of known size on white covers its area in the mask, and not the border."""
    scene = Scene("plain", (Thing("square", "red", 0.5, 0.5, 0.3),), 1)
    mask = thing_mask(render([scene], DOODLE, (128, 128))[0])
    assert mask.float().mean().item() == pytest.approx((2 * 0.3 * 0.76) ** 2, abs=0.04)
    assert not mask[:8].any()


def test_saturation() -> None:
    """Grey has a saturation of 0, pure red of 1."""
    assert mean_saturation(grey_canvas(1, (16, 16))) == 0
    red = torch.zeros(1, 3, 16, 16)
    red[:, 0] = 1
    assert mean_saturation(red) == pytest.approx(1)


def test_held_out_scenes() -> None:
    """All kinds come in turn, large enough to classify; prompts have colour and kind."""
    scenes = held_out_scenes(len(KINDS), 0)
    assert {s.things[0].kind for s in scenes} == set(KINDS)
    for scene in scenes:
        thing = scene.things[0]
        assert thing.size >= 0.26
        assert f"{thing.colour} {thing.kind}" in prompt_for(scene)
        assert prompt_for(scene, "ANIME").startswith(prompt_for(scene))


def test_redraw() -> None:
    """Kind, colour and place are the same; the thing is in another pose, close to the first."""
    for seed in range(20):
        scene = draw_scene(seed, max_things=1, posed=True)
        redrawn = redraw(scene, 1000 * (seed + 1))
        thing, moved = scene.things[0], redrawn.things[0]
        assert (moved.kind, moved.colour) == (thing.kind, thing.colour)
        assert (redrawn.place, redrawn.ground) == (scene.place, scene.ground)
        assert moved != thing
        assert abs(moved.x - thing.x) < 0.1
        assert abs(moved.y - thing.y) < 0.1
