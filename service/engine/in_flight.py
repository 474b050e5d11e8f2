"""Steps on their way: the device does one while the host makes the next one ready.

What a step has put before the device is a flight. It arrives when the device has done all of it,
and only then are its times, its progress and its pictures looked at: nothing of a step waits for
the device. One flight at most is left on its way, so a row that joins or leaves between two
steps waits for no more than the one that runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from models.runtime.transfer import Moment, Transfer
    from service.engine.scheduler import Row

_MOST_LEFT = 1


@dataclass(frozen=True)
class Span:
    """A stage of rows, from one moment to another."""

    rows: Sequence[Row]
    stage: str
    start: Moment
    end: Moment


@dataclass(frozen=True)
class Decoded:
    """Rows that are decoded in one call, and the host's memory for their pictures; see `pack`."""

    rows: Sequence[Row]
    packed: torch.Tensor  # [B, H * W * 3 + 2]
    in_fp32: bool


@dataclass
class InFlightStep:
    """What one step has put before the device: measured, stepped and decoded rows."""

    spans: list[Span] = field(default_factory=list)
    stepped: list[Row] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.spans or self.stepped or self.decoded)


class OverlapQueue:
    """The flight that is being put together, and those on their way, the oldest first."""

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self.next = InFlightStep()
        self._on_their_way: deque[tuple[InFlightStep, Moment]] = deque()

    def __len__(self) -> int:
        return len(self._on_their_way) + (not self.next.is_empty)

    @contextmanager
    def timed(self, rows: Sequence[Row], stage: str) -> Iterator[None]:
        """Measure a stage of rows, in the device's own order."""
        start = self.transfer.moment()
        yield
        self.next.spans.append(Span(rows, stage, start, self.transfer.moment()))

    def depart(self) -> None:
        """Let what the step has put together go."""
        if not self.next.is_empty:
            self._on_their_way.append((self.next, self.transfer.moment()))
            self.next = InFlightStep()

    def arrivals(self, can_go_on: Callable[[], bool]) -> Iterator[InFlightStep]:
        """Yield the flights that have arrived, waiting for all but one.

        While the next step could do nothing but wait, `can_go_on` being false, wait for that one.
        """
        while self._on_their_way:
            flight, end = self._on_their_way[0]
            if len(self._on_their_way) > _MOST_LEFT or not can_go_on():
                end.wait()
            elif not end.has_come():
                return
            self._on_their_way.popleft()
            yield flight
