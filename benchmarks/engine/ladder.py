"""The ladder of techniques: each rung is the one below and one thing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


RUNGS = (
    Rung(
        "diffusers",
        "diffusers' own pipeline, eager",
        lambda setup, _: DiffusersLane(setup, "diffusers"),
    ),
    Rung(
        "our loop",
        "schedule and tables made once, no device sync in a step",
        lambda setup, size: EngineLane(setup, "our loop", size=size, is_channels_last=False),
    ),
    Rung(
        "channels-last",
        "channels-last weights of convolutions",
        lambda setup, size: EngineLane(setup, "channels-last", size=size),
    ),
    Rung(
        "compiled",
        "UNet and autoencoder compiled as whole graphs",
        lambda setup, size: EngineLane(
            setup, "compiled", size=size, is_compiled=True, has_graphs=False, tune="off"
        ),
    ),
    Rung(
        "CUDA graphs",
        "CUDA graphs: one launch a step",
        lambda setup, size: EngineLane(
            setup, "CUDA graphs", size=size, is_compiled=True, tune="off"
        ),
        lambda setup: setup.is_cuda,
    ),
    Rung(
        "tuned",
        "fastest attention kernel; with --tune max every kernel, and fused projections",
        lambda setup, size: EngineLane(setup, "tuned", size=size, is_compiled=True),
        lambda setup: setup.tune != "off",
    ),
    Rung(
        "TAESD",
        "the AutoencoderTiny that comes with the checkpoint",
        lambda setup, size: EngineLane(
            setup, "TAESD", size=size, is_compiled=True, autoencoder="tiny"
        ),
        lambda setup: setup.tiny is not None,
        is_tiny=True,
    ),
)


def rungs_of(setup: Setup, names: Sequence[str] = ()) -> list[Rung]:
    """Return the available rungs, bottom first, or those of some names and the first.

    Raises ValueError for an unknown name.
    """
    if unknown := set(names) - {rung.name for rung in RUNGS}:
        raise ValueError(f"no rung is called {', '.join(sorted(unknown))}")
    available = [rung for rung in RUNGS if rung.is_available(setup)]
    return [rung for rung in available if not names or rung is available[0] or rung.name in names]
