"""Tiles are rows of one job: each is cut out of the same picture and the same noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.jobs import Finished
from tests.engine.runs import SIDE, levels_apart, load, make_engine, make_job, noise_image, run


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "kl_checkpoint"])
def test_a_tile_at_the_corner_equals_its_part_alone(
    checkpoint: str, request: pytest.FixtureRequest
) -> None:
    """Rows read their own part of the picture; equal parts and noise give equal rows."""
    pipeline = load(request.getfixturevalue(checkpoint))
    image = noise_image(2 * SIDE, 2 * SIDE, seed=3)
    image[SIDE:, SIDE:] = image[:SIDE, :SIDE]
    usual = make_job("tiles", seeds=(5, 5, 6), image=image)
    params = dataclasses.replace(usual.params, origins=((0, 0), (SIDE, SIDE), (0, 0)))
    job = dataclasses.replace(usual, params=params)
    outcome = run(make_engine(pipeline, max_batch=4), [job])["tiles"]
    assert isinstance(outcome, Finished)
    assert outcome.images.shape == (3, SIDE, SIDE, 3)
    # Equal parts of the picture, other parts of the field of noise: alike, and not the same.
    assert levels_apart(outcome.images[0], outcome.images[1]) > 2
    # The same part under another seed.
    assert levels_apart(outcome.images[0], outcome.images[2]) > 2


def test_noise_is_cut_where_the_tile_lies(tiny_checkpoint: Path) -> None:
    """Overlapping tiles agree in the noise of their overlap."""
    pipeline = load(tiny_checkpoint)
    field = pipeline.draw_noise(5, 256, 256, 4)
    left = pipeline.crop_noise(field, (0, 0), 128, 128)
    right = pipeline.crop_noise(field, (0, 64), 128, 128)
    torch.testing.assert_close(left.start[..., 8:], right.start[..., :8], rtol=0, atol=0)
    torch.testing.assert_close(left.steps[..., 8:], right.steps[..., :8], rtol=0, atol=0)
    assert not np.array_equal(left.start, right.start)


def test_a_job_of_more_tiles_than_the_batch_shares_batches(tiny_checkpoint: Path) -> None:
    """Nine tiles on a batch of four are taken in parts, and none is lost."""
    pipeline = load(tiny_checkpoint)
    usual = make_job("tiles", seeds=(5,) * 9, image=noise_image(2 * SIDE, 2 * SIDE))
    origins = tuple((y, x) for y in (0, 64, 128) for x in (0, 64, 128))
    job = dataclasses.replace(usual, params=dataclasses.replace(usual.params, origins=origins))
    engine = make_engine(pipeline, max_batch=4, num_slots=25)
    outcomes = run(engine, [job, make_job("other")])
    assert engine.stats.max_batch_seen == 4
    whole, other = outcomes["tiles"], outcomes["other"]
    assert isinstance(whole, Finished)
    assert isinstance(other, Finished)
    one_by_one = run(make_engine(pipeline, num_slots=25), [job])["tiles"]
    assert isinstance(one_by_one, Finished)
    assert levels_apart(whole.images, one_by_one.images) <= 1
