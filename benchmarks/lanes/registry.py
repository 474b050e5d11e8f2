"""All lanes by name, what each is, and when it is available."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from benchmarks.core.setup import Setup
from benchmarks.lanes.ablations import EncodedLane, RequestBatchedLane
from benchmarks.lanes.base import Lane
from benchmarks.lanes.diffusers import DiffusersLane
from benchmarks.lanes.engine import EngineLane
from benchmarks.lanes.isolated import IsolatedLane
from benchmarks.lanes.stream_diffusion import StreamLane


@dataclass
class LaneFactory:
    """What the lanes of one run are made with. Lanes that differ outside the engine share it."""

    setup: Setup
    size: int
    max_batch: int
    is_compiled: bool

    @cached_property
    def batched(self) -> EngineLane:
        return self.engine("ours-batched", self.max_batch)

    def diffusers_eager(self, name: str) -> Lane:
        """Return eager diffusers. On a CPU it has its own process, with malloc's defaults."""
        make = partial(DiffusersLane, self.setup, name)
        return make() if self.setup.is_cuda else IsolatedLane(name, make)

    def engine(
        self, name: str, max_batch: int, *, has_graphs: bool = True, is_tiny: bool = False
    ) -> EngineLane:
        return EngineLane(
            self.setup,
            name,
            max_batch=max_batch,
            size=self.size,
            is_compiled=self.is_compiled,
            has_graphs=has_graphs,
            autoencoder="tiny" if is_tiny else "full",
        )


@dataclass(frozen=True)
class LaneSpec:
    """A lane by its name, how to make it under this name, and whether a factory can."""

    name: str
    description: str
    make_named: Callable[[LaneFactory, str], Lane]
    is_available: Callable[[LaneFactory], bool] = lambda _: True

    def make(self, factory: LaneFactory) -> Lane:
        return self.make_named(factory, self.name)


DIFFUSERS_EAGER, DIFFUSERS_COMPILED = "diffusers-eager", "diffusers-compiled"
STREAM_DIFFUSION = "stream-diffusion"

REQUEST_LANES = (
    LaneSpec(DIFFUSERS_EAGER, "diffusers, eager", LaneFactory.diffusers_eager),
    LaneSpec("ours-batched", "ours, step-level batching", lambda factory, _: factory.batched),
    LaneSpec(
        DIFFUSERS_COMPILED,
        "diffusers, channels-last, compiled with max-autotune",
        lambda factory, name: DiffusersLane(factory.setup, name, is_compiled=True),
        lambda factory: factory.is_compiled,
    ),
    LaneSpec(
        "ours-sequential",
        "ours, one request at a time",
        lambda factory, name: factory.engine(name, 1),
    ),
    LaneSpec(
        "diffusers-eager-held-memory",
        "diffusers, eager, with the engine's malloc settings",
        lambda factory, name: DiffusersLane(factory.setup, name),
        lambda factory: not factory.setup.is_cuda,
    ),
    LaneSpec(
        "ours-request-batched",
        "ours, batching only requests with equal steps, strength and guidance",
        lambda factory, name: RequestBatchedLane(factory.batched, name),
    ),
    LaneSpec(
        "ours-batched-jpeg",
        "ours-batched, each picture encoded as JPEG",
        lambda factory, name: EncodedLane(factory.batched, name, "jpeg"),
    ),
    LaneSpec(
        "ours-batched-png",
        "ours-batched, each picture encoded as PNG",
        lambda factory, name: EncodedLane(factory.batched, name, "png"),
    ),
    LaneSpec(
        "ours-batched-no-graphs",
        "ours-batched, compiled, without CUDA graphs",
        lambda factory, name: factory.engine(name, factory.max_batch, has_graphs=False),
        lambda factory: factory.is_compiled and factory.setup.is_cuda,
    ),
)
"""Lanes for one request and for many users at once; the most informative first."""

STREAM_LANES = (
    LaneSpec(
        STREAM_DIFFUSION,
        "StreamDiffusion's recipe: stream batch and TAESD",
        lambda factory, name: StreamLane(factory.setup, name, is_compiled=factory.is_compiled),
        lambda factory: factory.setup.can_stream,
    ),
    LaneSpec(
        "ours-taesd",
        "ours with TAESD",
        lambda factory, name: factory.engine(name, factory.max_batch, is_tiny=True),
        lambda factory: factory.setup.can_stream,
    ),
)
"""Lanes for one user's stream of frames, all with an `AutoencoderTiny`."""


def select(
    specs: Sequence[LaneSpec], factory: LaneFactory, names: Sequence[str] = ()
) -> list[LaneSpec]:
    """Return the available lanes, or those of some names and the first, the base of all ratios."""
    available = [spec for spec in specs if spec.is_available(factory)]
    wanted = [spec for spec in available if not names or spec.name in names]
    return [spec for spec in available if spec in wanted or spec is available[0]] if wanted else []
