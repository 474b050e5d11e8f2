"""Who is held against whom: the lanes of the protocol by their letters, and ablations of E."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.core.setup import Place
from benchmarks.lanes.ablations import AlikeLane, EncodedLane
from benchmarks.lanes.base import DiffusersLane, Lane
from benchmarks.lanes.engine import EngineLane
from benchmarks.lanes.isolated import ApartLane
from benchmarks.lanes.stream_diffusion import StreamLane


@dataclass
class Team:
    """What lanes of one run are made with; those that differ outside of the engine share it."""

    place: Place
    size: int
    max_batch: int
    is_compiled: bool
    _batching: EngineLane | None = None

    def batching(self) -> EngineLane:
        """Return lane E, loaded once."""
        if self._batching is None:
            self._batching = self.engine("E", self.max_batch)
        return self._batching

    def diffusers(self, name: str) -> Lane:
        """Return diffusers, eager; on a CPU in a process of its own, with malloc as it comes."""
        make = partial(DiffusersLane, self.place, name)
        return make() if self.place.is_cuda else ApartLane(name, make)

    def engine(
        self, name: str, max_batch: int, *, has_graphs: bool = True, is_tiny: bool = False
    ) -> EngineLane:
        return EngineLane(
            self.place,
            name,
            max_batch=max_batch,
            size=self.size,
            is_compiled=self.is_compiled,
            has_graphs=has_graphs,
            autoencoder="tiny" if is_tiny else "full",
        )


@dataclass(frozen=True)
class Contender:
    """A lane by its letter, what it is, and whether a team has it."""

    letter: str
    what: str
    make: Callable[[Team], Lane]
    is_here: Callable[[Team], bool] = lambda _: True


CROWD = (
    Contender("A", "diffusers, eager", lambda team: team.diffusers("A")),
    Contender("E", "ours, batching at the step", lambda team: team.batching()),
    Contender(
        "B",
        "diffusers, channels-last and max-autotuned",
        lambda team: DiffusersLane(team.place, "B", is_tuned=True),
        lambda team: team.is_compiled,
    ),
    Contender("D", "ours, one request at a time", lambda team: team.engine("D", 1)),
    Contender(
        "A-held",
        "A, with the engine's way to hold memory",
        lambda team: DiffusersLane(team.place, "A-held"),
        lambda team: not team.place.is_cuda,
    ),
    Contender(
        "E-alike",
        "E, batching only requests with equal steps, strength and guidance",
        lambda team: AlikeLane(team.batching(), "E-alike"),
    ),
    Contender(
        "E-jpeg",
        "E, and each picture a JPEG",
        lambda team: EncodedLane(team.batching(), "E-jpeg", "jpeg"),
    ),
    Contender(
        "E-png",
        "E, and each picture a PNG",
        lambda team: EncodedLane(team.batching(), "E-png", "png"),
    ),
    Contender(
        "E-no-graphs",
        "E, compiled but without CUDA graphs",
        lambda team: team.engine("E-no-graphs", team.max_batch, has_graphs=False),
        lambda team: team.is_compiled and team.place.is_cuda,
    ),
)
"""One request, and many users at once; the most telling first, and A what all are held against."""

STREAM = (
    Contender(
        "C",
        "StreamDiffusion's recipe: stream batch and TAESD",
        lambda team: StreamLane(team.place, "C", is_tuned=team.is_compiled),
    ),
    Contender(
        "F",
        "ours with TAESD",
        lambda team: team.engine("F", team.max_batch, is_tiny=True),
    ),
)
"""One user's stream of frames, with an `AutoencoderTiny` on both sides."""


def contenders_of(
    contenders: Sequence[Contender], team: Team, letters: Sequence[str] = ()
) -> list[Contender]:
    """Return those that a team has; of some letters alone, the first one always beside them."""
    here = [one for one in contenders if one.is_here(team)]
    wanted = [one for one in here if not letters or one.letter in letters]
    return [*here[:1], *(one for one in wanted if one is not here[0])] if wanted else []
