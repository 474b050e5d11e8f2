"""The helpers of the evaluation: masks, saturation, scenes asked for, the card's table."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import torch

from models.training.evaluate import check_judge, table, updated, write_figures
from models.training.evaluation.classifier import Judge
from models.training.evaluation.latency import (
    Bench,
    Row,
    asked_scenes,
    drawn_again,
    grey_canvas,
    mask_of,
    prompt_for,
    saturation_of,
)
from models.training.evaluation.served import median_seconds
from models.training.scenes.renderers import render
from models.training.scenes.scene import KINDS, Scene, Thing, draw_scene

if TYPE_CHECKING:
    from pathlib import Path


def test_a_mask_finds_the_thing() -> None:
    """A square of known size on white covers its area in the mask, and nothing is in the rim."""
    scene = Scene("plain", (Thing("square", "red", 0.5, 0.5, 0.3),), 1)
    mask = mask_of(render([scene], "doodle", (128, 128))[0])
    assert mask.float().mean().item() == pytest.approx((2 * 0.3 * 0.76) ** 2, abs=0.04)
    assert not mask[:8].any()


@pytest.mark.slow
def test_a_request_is_timed_through_the_service(tiny_checkpoint: Path) -> None:
    """A folder is served, and answers with pictures alone, within a time."""
    assert 0 < median_seconds(tiny_checkpoint, 2.0) < 60


def test_a_folder_that_cannot_be_served_is_told(tmp_path: Path) -> None:
    """Where there is no checkpoint there is no time."""
    with pytest.raises(subprocess.CalledProcessError):
        median_seconds(tmp_path, 2.0)


def test_saturation_tells_ink_from_crayon() -> None:
    """Grey has no saturation, pure red has all of it."""
    assert saturation_of(grey_canvas(1, (16, 16))) == 0
    red = torch.zeros(1, 3, 16, 16)
    red[:, 0] = 1
    assert saturation_of(red) == pytest.approx(1)


def test_every_kind_is_asked_for_and_named() -> None:
    """The scenes asked for go round all kinds, in sizes one can judge, named with colours."""
    scenes = asked_scenes(len(KINDS), 0)
    assert {s.things[0].kind for s in scenes} == set(KINDS)
    for scene in scenes:
        thing = scene.things[0]
        assert thing.size >= 0.26
        assert f"{thing.colour} {thing.kind}" in prompt_for(scene)
        assert prompt_for(scene, "ANIME").startswith(prompt_for(scene))


def test_a_scene_is_drawn_again_for_the_same_prompt() -> None:
    """Kind, colour and place stay; the thing stands elsewhere, and near: as posed ones do."""
    for seed in range(20):
        scene = draw_scene(seed, max_things=1, posed=True)
        again = drawn_again(scene, 1000 * (seed + 1))
        thing, moved = scene.things[0], again.things[0]
        assert (moved.kind, moved.colour) == (thing.kind, thing.colour)
        assert (again.place, again.ground) == (scene.place, scene.ground)
        assert moved != thing
        assert abs(moved.x - thing.x) < 0.1
        assert abs(moved.y - thing.y) < 0.1


def test_a_single_measure_leaves_the_other_figures() -> None:
    """Fresh rows stand where they stood, others stay, and a row that is new comes last."""
    before = [Row("size", "1 MB", "-", "-"), Row("speed", "2 s", "-", "-")]
    fresh = [Row("colour", "3 %", "-", "-"), Row("size", "4 MB", "-", "-")]
    assert updated(before, fresh) == [fresh[1], before[1], fresh[0]]


def test_figures_are_put_into_the_card_again_and_again(tmp_path: Path) -> None:
    """A second evaluation replaces the first one's table and leaves the rest of the card."""
    card = tmp_path / "README.md"
    card.write_text("above\n<!-- figures -->\n<!-- /figures -->\nbelow\n")
    for value in ("1 dB", "2 dB"):
        write_figures(card, [Row("quality", value, "3 dB", "2 dB")])
    text = card.read_text()
    assert "| quality | 2 dB |" in text
    assert "1 dB" not in text
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert table([]) in text


def test_a_judge_that_knows_too_little_is_not_written_down(tmp_path: Path) -> None:
    """One at 98 % is heard; one below it, of squares or of other shapes, ends with the cure."""
    right, wrong = {"kind": 0.978, "style": 1.0}, {"kind": 1.0, "style": 0.97}
    for own, own_wide in ((right, wrong), (wrong, right)):
        with pytest.raises(SystemExit, match=r"97 % of the cases.*--judge-minutes"):
            check_judge(_bench(tmp_path, own, own_wide))
    check_judge(_bench(tmp_path, right, right))


def _bench(folder: Path, own: dict[str, float], own_wide: dict[str, float]) -> Bench:
    return Bench(folder, folder, None, Judge(), 1, own=own, own_wide=own_wide)
