"""The ladder of techniques: each rung is the one below and one thing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.core.setup import Place
from benchmarks.lanes.base import DiffusersLane, PartedLane
from benchmarks.lanes.engine import EngineLane


@dataclass(frozen=True)
class Rung:
    """A way to make pictures, and what it adds to the rung below.

    `make` takes a place and the pixels of a side; `is_here` tells whether a place has it.
    """

    name: str
    adds: str
    make: Callable[[Place, int], PartedLane]
    is_here: Callable[[Place], bool] = lambda _: True
    is_tiny: bool = False


RUNGS = (
    Rung(
        "diffusers",
        "diffusers' own pipeline, eager",
        lambda place, _: DiffusersLane(place, "diffusers"),
    ),
    Rung(
        "our loop",
        "schedule and tables made once, no sync in a step",
        lambda place, size: EngineLane(place, "our loop", size=size, is_channels_last=False),
    ),
    Rung(
        "channels-last",
        "weights of convolutions with their channels last",
        lambda place, size: EngineLane(place, "channels-last", size=size),
    ),
    Rung(
        "compiled",
        "UNet and autoencoder compiled as whole graphs",
        lambda place, size: EngineLane(
            place, "compiled", size=size, is_compiled=True, has_graphs=False, tune="off"
        ),
    ),
    Rung(
        "CUDA graphs",
        "and captured: one launch a step",
        lambda place, size: EngineLane(
            place, "CUDA graphs", size=size, is_compiled=True, tune="off"
        ),
        lambda place: place.is_cuda,
    ),
    Rung(
        "tuned",
        "attention by the fastest kernel; with --tune max every kernel, and fused projections",
        lambda place, size: EngineLane(place, "tuned", size=size, is_compiled=True),
        lambda place: place.tune != "off",
    ),
    Rung(
        "TAESD",
        "the small autoencoder beside the checkpoint's own",
        lambda place, size: EngineLane(
            place, "TAESD", size=size, is_compiled=True, autoencoder="tiny"
        ),
        lambda place: place.tiny is not None,
        is_tiny=True,
    ),
)


def rungs_of(place: Place, names: Sequence[str] = ()) -> list[Rung]:
    """Return the rungs that a place has, from the ground up; of some names, the first always.

    Raises ValueError for a name that no rung has.
    """
    if unknown := set(names) - {rung.name for rung in RUNGS}:
        raise ValueError(f"no rung is called {', '.join(sorted(unknown))}")
    here = [rung for rung in RUNGS if rung.is_here(place)]
    return [rung for rung in here if not names or rung is here[0] or rung.name in names]


def most_telling_first(rungs: Sequence[Rung]) -> list[Rung]:
    """Return them so that a run which is cut has told the whole, and then the steps of it."""
    return [*rungs[:1], *rungs[:0:-1]]
