"""Times of calls that take turns, so that a noisy moment meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from benchmarks.core.budget import Budget

Call = Callable[[], object]

LEAST_ROUNDS = 3
"""Fewer tell nothing. What is loaded and warm runs so often in any case, unless less was asked."""


def take_turns(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    warm_ups: int,
    budget: Budget,
    synchronise: Callable[[], None] = lambda: None,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Call each in turn, A-B-C-A-B-C, and return the seconds of its calls.

    The budget ends it between two rounds, but not before there are enough to tell anything:
    loading took longer than these.
    """
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(warm_ups):
            call()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and budget.is_spent:
            break
        for name, call in calls.items():
            seen[name].append(_seconds(call, synchronise))
        on_round()
    return seen


def _seconds(call: Call, synchronise: Callable[[], None]) -> float:
    synchronise()
    started = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - started
