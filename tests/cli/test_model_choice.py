"""Which checkpoint a command loads where REFINE_MODELS names several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import service.cli.refine
from service.cli import main as cli
from service.settings import Settings


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """The settings that `instant-refine refine` went on with, with two checkpoints named."""
    taken: list[Settings] = []

    def refine_file(*_: Path, settings: Settings, **__: Any) -> None:
        taken.append(settings)

    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(service.cli.refine, "refine_file", refine_file)
    monkeypatch.setenv("REFINE_MODELS", f"pocket, {tmp_path / 'mine'}")
    return taken


def refine(loaded: list[Settings], *options: str) -> tuple[str, ...]:
    arguments = ["refine", "in.png", "-o", "out.png", "-p", "a boat", *options]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return loaded[-1].model_names()


def test_refine_loads_the_default_alone(loaded: list[Settings]) -> None:
    """One picture needs one checkpoint: that which a request gets that names none."""
    assert refine(loaded) == ("pocket",)
    assert loaded[-1].engines()[0].models == ("pocket",)


def test_refine_chooses_by_model_id(loaded: list[Settings], tmp_path: Path) -> None:
    """`--model` is the `modelId` of one of them, what names one, or another checkpoint."""
    (tmp_path / "other").mkdir()
    mine = str(tmp_path / "mine")
    assert refine(loaded, "--model", "mine") == (mine,)
    assert refine(loaded, "--model", mine) == (mine,)
    assert refine(loaded, "--model", str(tmp_path / "other")) == (str(tmp_path / "other"),)


@pytest.mark.parametrize(
    ("given", "names"), [({"model": "pocket"}, ("pocket",)), ({}, ("one", "two"))]
)
def test_an_option_wins_over_the_environment(
    given: Mapping[str, str], names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve --model` and `warm --model` are not overruled by REFINE_MODELS."""
    monkeypatch.setenv("REFINE_MODELS", "one,two")
    assert cli._settings(**given).model_names() == names
