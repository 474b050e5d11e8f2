"""The upscale route: twice the size, tiles that fit, no seam, and the hosted ids."""

from __future__ import annotations

import uuid
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks.soak.picture_files import scene
from service.front.images.tiles import TILE_SIDE, blend_tiles, plan_tiles
from service.protocol.jobs import Pixels
from tests.support.api import Api, data_url, picture_of, size_of
from tests.support.fakes import FakeEngineClient

ROUTE = "/lcm-upscale"
SIDES = (1024, 1280, 2048)


@pytest.mark.parametrize("height", SIDES)
@pytest.mark.parametrize("width", SIDES)
def test_tiles_cover_every_size_and_overlap(height: int, width: int) -> None:
    """All lie inside, on the grid of the latents, each overlapping its neighbours by 64 or more."""
    origins = plan_tiles(height, width)
    assert len(origins) <= 25
    for axis, length in ((0, height), (1, width)):
        starts = sorted({origin[axis] for origin in origins})
        assert starts[0] == 0
        assert starts[-1] == length - TILE_SIDE
        assert all(start % 8 == 0 for start in starts)
        assert all(after - before <= TILE_SIDE - 64 for before, after in pairwise(starts))


def test_tiles_of_a_picture_blend_to_that_picture() -> None:
    """What is cut up and laid together again is the same, to the level."""
    picture = np.asarray(scene(1024, 1280))
    origins = plan_tiles(1024, 1280)
    tiles = np.stack([picture[y : y + TILE_SIDE, x : x + TILE_SIDE] for y, x in origins])
    np.testing.assert_array_equal(blend_tiles(tiles, origins, 1024, 1280), picture)


def test_tiles_of_other_brightness_leave_no_step() -> None:
    """Even where neighbours disagree by 100 levels, no pixel differs from the next by 3."""
    origins = plan_tiles(1024, 1024)
    tiles: Pixels = np.stack(
        [np.full((TILE_SIDE, TILE_SIDE, 3), 50 + 100 * (i % 2), np.uint8) for i in range(9)]
    )
    whole = blend_tiles(tiles, origins, 1024, 1024).astype(int)
    assert max(np.abs(np.diff(whole, axis=axis)).max() for axis in (0, 1)) <= 2


@pytest.mark.real_engines
def test_the_answer_is_twice_the_size_with_ids(api: Api) -> None:
    """One picture, and the ids are UUIDs, which other routes do not have."""
    source = scene(300, 500)
    answer = api.refine(ROUTE, imageDataUrl=data_url(source), seed=5, outputFormat="png")
    assert answer.status_code == 200, answer.text
    assert size_of(picture_of(answer)) == (1024, 1024)
    job = answer.json()["lcmGenerationJob"]
    for name in ("generationId", "variationId"):
        (value,) = job[name]
        uuid.UUID(value)
    uuid.UUID(job["generatedImageId"])
    assert "generationId" not in api.refine().json()["lcmGenerationJob"]


def test_the_engine_gets_tiles_of_one_seed(api: Api, engine: FakeEngineClient) -> None:
    """Of a picture that was enlarged first, as rows of one job with a deadline of its own."""
    answer = api.refine(ROUTE, height=640, width=1024, seed=5)
    assert size_of(picture_of(answer)) == (2048, 1280)
    params, image, timeout_s = engine.asked[-1]
    assert image.shape == (1280, 2048, 3)
    assert (params.height, params.width) == (TILE_SIDE, TILE_SIDE)
    assert params.origins == plan_tiles(1280, 2048)
    assert params.seeds == (5,) * len(params.origins)
    assert timeout_s > 60


@pytest.mark.parametrize(
    ("fields", "strength"),
    [
        ({}, 0.3),
        ({"refineStrength": 0.5}, 0.25),
        ({"refineStrength": 0.9}, 0.45),
        ({"refineStrength": 0.9, "refineCreative": True}, 0.72),
        ({"refineCreative": False, "refineStrength": None}, 0.3),
        ({"refineStrength": 0.9, "strength": 0.1}, 0.1),
    ],
)
def test_how_far_detail_may_depart(
    api: Api, engine: FakeEngineClient, fields: dict[str, Any], strength: float
) -> None:
    """The two fields of the route map to a strength; a strength given holds as it stands."""
    assert api.refine(ROUTE, **fields).status_code == 200
    assert engine.asked[-1][0].strength == pytest.approx(strength)


@pytest.mark.parametrize(
    ("name", "value"),
    [("refineStrength", 0.49), ("refineStrength", 0.91), ("refineCreative", 1)],
)
def test_its_fields_have_bounds_and_other_routes_do_not_take_them(
    api: Api, name: str, value: Any
) -> None:
    """Out of bounds is refused here, and the whole field elsewhere."""
    api.refused(api.refine(ROUTE, **{name: value}), 400, "validation-failed", f"$.{name}")
    api.refused(api.refine(**{name: value}), 400, "bad-request", f"$.{name}")
