"""Interleaved calls: A-B-C-A-B-C, so that a noisy moment affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from benchmarks.core.experiment import Session

K = TypeVar("K")
T = TypeVar("T")
Call = Callable[[], object]

MIN_ROUNDS = 3
"""Rounds that are run even when the budget is spent, unless fewer were asked for. Loading and
compiling took longer than these, and fewer show nothing."""


def interleave(
    calls: Mapping[K, Callable[[], T]],
    session: Session,
    *,
    rounds: int,
    warm_ups: int = 0,
    title: str = "rounds",
) -> dict[K, list[T]]:
    """Call each once a round; return what the calls returned, without the warm-ups."""
    returned: dict[K, list[T]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(warm_ups):
            call()
    task = session.progress.add_task(title, total=rounds)
    for number in range(rounds):
        if number >= MIN_ROUNDS and session.budget.is_spent:
            break
        for name, call in calls.items():
            returned[name].append(call())
        session.progress.advance(task)
    return returned


def timed(call: Call, synchronise: Callable[[], None]) -> Callable[[], float]:
    """Return a function that makes the call and returns its seconds."""

    def seconds() -> float:
        synchronise()
        started = time.perf_counter()
        call()
        synchronise()
        return time.perf_counter() - started

    return seconds
