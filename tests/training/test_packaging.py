"""The wheel and the image hold the service and the models, and leave the training out."""

from __future__ import annotations

import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def test_wheel_leaves_training_out() -> None:
    """The packages that pyproject.toml selects include `models`, and no part of the training."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    find = project["tool"]["setuptools"]["packages"]["find"]
    packages = find_packages(str(ROOT), find["exclude"], find["include"])
    assert {"models", "service"} <= set(packages)
    assert not [name for name in packages if name.startswith("models.training")]


def test_image_leaves_training_out() -> None:
    """The build context of the image excludes the folder after it has included `models`."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines.index("models/training") > lines.index("!models")
