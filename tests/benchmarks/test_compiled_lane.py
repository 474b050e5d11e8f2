"""Our engine as a lane that says it is compiled: it is, or it does not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.core.jobs import make_job
from benchmarks.core.setup import Place
from benchmarks.lanes.engine import EngineLane
from models.graphs import CudaGraphs
from service.engine import loading, warming

SIDE = 64


class Nothing:
    """A compiler that ends at once and has made nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def has_ended(self) -> bool:
        return True

    def wait(self) -> int:
        return 1


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """Packages that are there already, and hold the eager module; which were loaded."""
    package, loaded = tmp_path / "a.pt2", list[torch.nn.Module]()
    package.touch()

    def load(_: Path, module: torch.nn.Module) -> Callable[..., Any]:
        loaded.append(module)
        return module

    monkeypatch.setattr(warming, "package_path", lambda *_: package)
    monkeypatch.setattr(warming, "load_package", load)
    return loaded


@pytest.mark.parametrize("has_graphs", [False, True])
def test_a_compiled_lane_has_taken_up_its_packages(
    kl_checkpoint: Path, packages: list[torch.nn.Module], *, has_graphs: bool
) -> None:
    """UNet, text encoder, encoder and decoder, and its pictures are the eager lane's."""
    place = Place(kl_checkpoint)
    lane = EngineLane(place, "compiled", size=SIDE, is_compiled=True, has_graphs=has_graphs)
    assert len(packages) == 4
    job = make_job(4, size=SIDE)
    assert np.array_equal(lane.picture(job), EngineLane(place, "eager").picture(job))
    assert lane.parts(SIDE).keys() == {
        "unet", "encode", "decode", "text", "copy", "codec",
    }  # fmt: skip


def test_a_lane_that_could_not_be_compiled_does_not_run(
    kl_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would be timed under a name that is not its own."""
    monkeypatch.setattr(loading, "Compiler", Nothing)
    place = Place(kl_checkpoint, cache=tmp_path)
    with pytest.raises(RuntimeError, match="compiled: not every forward could be compiled"):
        EngineLane(place, "compiled", size=SIDE, is_compiled=True)


def test_a_lane_without_graphs_captures_none(
    kl_checkpoint: Path, packages: list[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA compiled forwards are captured, unless a lane is to show what that gives."""
    captured: list[str] = []

    class Recording(CudaGraphs):
        def __init__(self) -> None:
            pass

        def capture(self, function: Any, inputs: Any) -> Any:
            captured.append(type(function).__name__)
            return function(*inputs)

    def with_graphs(*args: Any, **options: Any) -> warming.Warming:
        return warming.Warming(*args, **options | {"capturer": Recording()})

    monkeypatch.setattr(loading, "Warming", with_graphs)
    place = Place(kl_checkpoint)
    EngineLane(place, "compiled", size=SIDE, is_compiled=True, has_graphs=False)
    assert not captured
    EngineLane(place, "CUDA graphs", size=SIDE, is_compiled=True)
    assert len(captured) == 4
    assert len(packages) == 8
