"""A lane that says it is compiled: it is, or it does not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.core.jobs import make_job
from benchmarks.core.setup import Setup
from benchmarks.lanes.engine import EngineLane
from models.runtime.forward import CudaGraphs
from service.engine import builder as loading
from service.engine import warmup as warming

SIDE = 64


class Nothing:
    """A compiler that ends at once without a package."""

    def __init__(self, *_: object) -> None:
        pass

    def has_ended(self) -> bool:
        return True

    def wait(self) -> int:
        return 1


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """Compiled packages that hold the eager module; returns those that were loaded."""
    package, loaded = tmp_path / "a.pt2", list[torch.nn.Module]()
    package.touch()

    def load(_: Path, module: torch.nn.Module) -> Callable[..., Any]:
        loaded.append(module)
        return module

    monkeypatch.setattr(warming, "package_path", lambda *_: package)
    monkeypatch.setattr(warming, "load_package", load)
    return loaded


@pytest.mark.parametrize("has_graphs", [False, True])
def test_compiled_lane_uses_its_packages(
    kl_checkpoint: Path, packages: list[torch.nn.Module], *, has_graphs: bool
) -> None:
    """It loads UNet, text encoder, encoder and decoder, and makes the eager lane's pictures."""
    setup = Setup(kl_checkpoint)
    lane = EngineLane(setup, "compiled", size=SIDE, is_compiled=True, has_graphs=has_graphs)
    assert len(packages) == 4
    job = make_job(4, size=SIDE)
    assert np.array_equal(lane.picture(job), EngineLane(setup, "eager").picture(job))
    assert lane.stages(SIDE).keys() == {
        "unet", "encode", "decode", "text", "copy", "codec",
    }  # fmt: skip


def test_failed_compilation(
    kl_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lane that could not be compiled raises, rather than be timed under a wrong name."""
    monkeypatch.setattr(loading, "Compiler", Nothing)
    setup = Setup(kl_checkpoint, cache=tmp_path)
    with pytest.raises(RuntimeError, match="compiled: not every forward could be compiled"):
        EngineLane(setup, "compiled", size=SIDE, is_compiled=True)


def test_lane_without_graphs(
    kl_checkpoint: Path, packages: list[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled forwards are captured, except in a lane without CUDA graphs."""
    captured: list[str] = []

    class Recording(CudaGraphs):
        def __init__(self) -> None:
            pass

        def capture(self, function: Any, inputs: Any) -> Any:
            captured.append(type(function).__name__)
            return function(*inputs)

    def with_graphs(*args: Any, **options: Any) -> warming.Warmup:
        return warming.Warmup(*args, **options | {"capturer": Recording()})

    monkeypatch.setattr(loading, "Warmup", with_graphs)
    setup = Setup(kl_checkpoint)
    EngineLane(setup, "compiled", size=SIDE, is_compiled=True, has_graphs=False)
    assert not captured
    EngineLane(setup, "CUDA graphs", size=SIDE, is_compiled=True)
    assert len(captured) == 4
    assert len(packages) == 8
