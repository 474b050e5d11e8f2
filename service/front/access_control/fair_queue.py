"""Whose picture is read next: a few at once, and no caller keeps another one waiting for long.

Callers have equal shares of the time, by start-time fair queueing (`service.fair_share`). What a
picture costs is known when it has been read, and charged then: whoever comes with small ones is
not held up by somebody's large ones for more than the one that runs. Knows no clock.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from service.fair_share import StartTimeFairQueue


@dataclass(eq=False)
class Turn:
    """A place in the queue, and the turn that comes of it. One of the large runs at a time."""

    caller: str
    is_large: bool = False
    granted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class FairSemaphore:
    """At most `most` turns at once, one of them large. Used from one event loop."""

    def __init__(self, most: int) -> None:
        self._num_free = most
        self._large_runs = False
        self._waiting: list[Turn] = []
        self._shares = StartTimeFairQueue()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def take(self, caller: str, *, is_large: bool = False) -> Turn:
        """Wait for a turn; give it back afterwards. A cancelled call holds none."""
        turn = Turn(caller, is_large)
        self._shares.enter(caller)
        self._waiting.append(turn)
        self._grant()
        try:
            await turn.granted
        except asyncio.CancelledError:
            self._withdraw(turn)
            raise
        return turn

    def give_back(self, turn: Turn, spent: float) -> None:
        """End a turn that took `spent`, in any unit that is the same for all."""
        self._num_free += 1
        if turn.is_large:
            self._large_runs = False
        self._shares.add(turn.caller, spent)
        self._shares.leave(turn.caller)
        self._grant()

    def _withdraw(self, turn: Turn) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
            self._shares.leave(turn.caller)
        else:  # cancelled at the moment that its turn came
            self.give_back(turn, 0.0)

    def _grant(self) -> None:
        while self._num_free and (turn := self._next()) is not None:
            self._waiting.remove(turn)
            self._num_free -= 1
            self._large_runs |= turn.is_large
            self._shares.advance(self._shares.begin(turn.caller, 0.0))
            turn.granted.set_result(None)

    def _next(self) -> Turn | None:
        """Return who has had least among those whose turn could come now, the first one of his."""
        ready = [turn for turn in self._waiting if self._could_come(turn)]
        callers = self._shares.in_turn(turn.caller for turn in ready)
        return next((turn for turn in ready if turn.caller == callers[0]), None) if ready else None

    def _could_come(self, turn: Turn) -> bool:
        # One that was cancelled stands here until its task has run.
        return not turn.granted.done() and not (turn.is_large and self._large_runs)
