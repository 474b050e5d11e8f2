"""The ladder of techniques: each rung is the one below and one thing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.core.setup import Setup
from benchmarks.lanes.base import StagedLane
from benchmarks.lanes.diffusers import DiffusersLane
from benchmarks.lanes.engine import EngineLane


@dataclass(frozen=True)
class Rung:
    """A lane, and what it adds to the rung below. `make` gets a setup and the side in pixels."""

    name: str
    adds: str
    make: Callable[[Setup, int], StagedLane]
    is_available: Callable[[Setup], bool] = lambda _: True
    is_tiny: bool = False


def _ours(
    name: str, adds: str, is_available: Callable[[Setup], bool] = lambda _: True, **options: Any
) -> Rung:
    """Return a rung of our engine with options of `EngineLane`."""
    is_tiny = options.get("autoencoder") == "tiny"

    def make(setup: Setup, size: int) -> EngineLane:
        return EngineLane(setup, name, size=size, **options)

    return Rung(name, adds, make, is_available, is_tiny)


RUNGS = (
    Rung(
        "diffusers",
        "diffusers' own pipeline, eager",
        lambda setup, _: DiffusersLane(setup, "diffusers"),
    ),
    _ours(
        "our loop",
        "schedule and tables made once, no device sync in a step",
        is_channels_last=False,
    ),
    _ours("channels-last", "channels-last weights of convolutions"),
    _ours(
        "compiled",
        "UNet and autoencoder compiled as whole graphs",
        is_compiled=True, has_graphs=False, tune="off",
    ),
    _ours(
        "CUDA graphs",
        "CUDA graphs: one launch a step",
        lambda setup: setup.is_cuda,
        is_compiled=True, tune="off",
    ),
    _ours(
        "tuned",
        "fastest attention kernel; with --tune max every kernel, and fused projections",
        lambda setup: setup.tune != "off",
        is_compiled=True,
    ),
    _ours(
        "TAESD",
        "the AutoencoderTiny that comes with the checkpoint",
        lambda setup: setup.tiny is not None,
        is_compiled=True, autoencoder="tiny",
    ),
)  # fmt: skip


def rungs_of(setup: Setup, names: Sequence[str] = ()) -> list[Rung]:
    """Return the available rungs, bottom first, or those of some names and the first.

    Raises ValueError for an unknown name.
    """
    if unknown := set(names) - {rung.name for rung in RUNGS}:
        raise ValueError(f"no rung is called {', '.join(sorted(unknown))}")
    available = [rung for rung in RUNGS if rung.is_available(setup)]
    return [rung for rung in available if not names or rung is available[0] or rung.name in names]
