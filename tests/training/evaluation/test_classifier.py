"""The classifier of true renders, and the distance on its features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.training.evaluate import check_classifier
from models.training.evaluation.classifier import Classifier
from models.training.evaluation.frechet import frechet_distance
from models.training.evaluation.inputs import Evaluation


def test_wide_images_are_undistorted() -> None:
    """A square in the middle of a wide image shrinks to the same pixels as the square alone."""
    square = torch.rand(1, 3, 192, 192)
    wide = torch.nn.functional.pad(square, (96, 96), value=1)  # [1, 3, 192, 384]
    for images in (wide, wide.mT):
        assert Classifier().eval()(images).kind.shape == (1, 16)
    middle = Classifier.shrink(wide)[..., 48:144]
    torch.testing.assert_close(middle, Classifier.shrink(square))
    torch.testing.assert_close(Classifier.shrink(wide.mT).mT, Classifier.shrink(wide))


def test_frechet_distance() -> None:
    """The distance of features to themselves is 0, and to shifted ones the squared shift."""
    features = torch.randn(64, 8)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-3)
    assert frechet_distance(features, features + 1) == pytest.approx(8, rel=1e-3)


def test_inaccurate_classifier_is_rejected(tmp_path: Path) -> None:
    """Below 98 % on square or on other shapes, the error names the option to train longer."""
    good, bad = {"kind": 0.978, "style": 1.0}, {"kind": 1.0, "style": 0.97}
    for accuracy, wide_accuracy in ((good, bad), (bad, good)):
        with pytest.raises(SystemExit, match=r"97 %.*--classifier-minutes"):
            check_classifier(_evaluation(tmp_path, accuracy, wide_accuracy))
    check_classifier(_evaluation(tmp_path, good, good))


def _evaluation(
    folder: Path, accuracy: dict[str, float], wide_accuracy: dict[str, float]
) -> Evaluation:
    return Evaluation(
        folder, folder, None, Classifier(), 1, accuracy=accuracy, wide_accuracy=wide_accuracy
    )
