"""Tiles are rows of one job: each is cut out of the same picture and the same noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from models.pipeline import Pipeline, RowNoise
from service.protocol.jobs import Finished
from tests.support.engine_runs import (
    SIDE,
    levels_apart,
    load,
    make_engine,
    make_job,
    noise_image,
    picture,
    run,
)


def test_each_tile_equals_its_part_alone(tiny_checkpoint: Path) -> None:
    """A row reads its own part of the picture, and its own part of the noise."""
    pipeline = load(tiny_checkpoint)
    image = noise_image(2 * SIDE, 2 * SIDE, seed=3)
    usual = make_job("tiles", seeds=(5, 5, 6), image=image)
    origins = ((0, 0), (64, SIDE), (SIDE, 32))
    job = dataclasses.replace(usual, params=dataclasses.replace(usual.params, origins=origins))
    outcome = run(make_engine(pipeline, max_batch=4), [job])["tiles"]
    assert isinstance(outcome, Finished)
    assert outcome.images.shape == (3, SIDE, SIDE, 3)
    for tile, seed, (y, x) in zip(outcome.images, (5, 5, 6), origins, strict=True):
        part = np.ascontiguousarray(image[y : y + SIDE, x : x + SIDE])
        noise = pipeline.crop_noise(
            pipeline.draw_noise(seed, 2 * SIDE, 2 * SIDE, 4), (y, x), SIDE, SIDE
        )
        alone = run(make_engine(GivenNoise(pipeline, noise)), [make_job(image=part)])["job"]
        assert levels_apart(tile, picture(alone)) <= 1


class GivenNoise(Pipeline):
    """A pipeline that draws what it is given."""

    def __init__(self, usual: Pipeline, noise: RowNoise) -> None:
        vars(self).update(vars(usual))
        self._noise = noise

    def draw_noise(
        self, seed: int, height: int, width: int, num_steps: int, autoencoder: str = "full"
    ) -> RowNoise:
        assert autoencoder == "full"
        assert (height, width, num_steps) == (SIDE, SIDE, 4), seed
        return self._noise


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
    engine = make_engine(pipeline, max_batch=4)
    outcomes = run(engine, [job, make_job("other")])
    assert engine.stats.max_batch_seen == 4
    whole, other = outcomes["tiles"], outcomes["other"]
    assert isinstance(whole, Finished)
    assert isinstance(other, Finished)
    one_by_one = run(make_engine(pipeline), [job])["tiles"]
    assert isinstance(one_by_one, Finished)
    assert levels_apart(whole.images, one_by_one.images) <= 1
