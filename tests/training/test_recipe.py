"""The recipe and its mixtures."""

from __future__ import annotations

import pytest

from models.training.recipe import parse_mixture, recipe
from models.training.train import STAGES

SIDES = (512, 640, 1024)


def test_parse_mixture() -> None:
    """A mixture has shapes, chunks, scenes and weights; `^` is for the trunk."""
    small, big = parse_mixture("128x128:40:64:0.8,512x640:2:8:0.1")
    assert (small.shape, big.shape) == ((128, 128), (512, 640))
    assert (big.chunks, big.scenes, big.weight) == (2, 8, 0.1)
    assert not small.for_trunk
    (trunk,) = parse_mixture("128x128^:40:64:0.8")
    assert (trunk.shape, trunk.for_trunk) == ((128, 128), True)


@pytest.mark.parametrize("large", [False, True])
def test_stages_use_existing_latents(*, large: bool) -> None:
    """Every stage exists, and its shapes are in the mixture of the latent data set."""
    steps = recipe(large=large)
    assert list(dict.fromkeys(step.stage for step in steps)) == list(STAGES)
    (built,) = [parse_mixture(step.mixture) for step in steps if step.stage == "latent-dataset"]
    shapes = {subset.shape for subset in built}
    for step in steps:
        subsets = parse_mixture(step.mixture)
        assert {subset.shape for subset in subsets} <= shapes
        assert step.stage != "lora" or not any(subset.for_trunk for subset in subsets)


@pytest.mark.parametrize("large", [False, True])
def test_recipe_covers_served_shapes(*, large: bool) -> None:
    """The shares sum to about one, and the last mixture has all nine shapes."""
    steps = recipe(large=large)
    assert sum(step.share for step in steps) == pytest.approx(1.0, abs=0.02)
    shapes = {subset.shape for subset in parse_mixture(steps[-1].mixture)}
    assert shapes == {(height, width) for height in SIDES for width in SIDES}
