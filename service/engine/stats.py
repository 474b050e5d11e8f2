"""What an engine counts, and how long its steps take: for metrics and for a watchdog."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_NUM_KEPT = 256


@dataclass
class EngineStats:
    """Counters since the start. A UNet call is one forward, however many rows share it.

    `batch_sizes` counts the calls of 1, 2, ... rows; `num_fp32_retries` rows that overflowed 16
    bits, in the UNet or the autoencoder, and ran again in fp32; `num_not_finite` rows that failed
    for good.
    """

    num_unet_calls: int = 0
    num_padded_rows: int = 0
    max_batch_seen: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    num_aborted: int = 0
    num_expired: int = 0
    num_failed: int = 0
    num_fp32_retries: int = 0
    num_not_finite: int = 0
    num_out_of_memory: int = 0

    def count_call(self, num_rows: int, num_padded: int = 0) -> None:
        self.num_unet_calls += 1
        self.num_padded_rows += num_padded
        self.max_batch_seen = max(self.max_batch_seen, num_rows)
        self.batch_sizes += [0] * (num_rows - len(self.batch_sizes))
        self.batch_sizes[num_rows - 1] += 1


def num_traced() -> int:
    """Return how many graphs torch has traced in this process to compile them: 0, as it should be.

    Forwards are compiled ahead of time by another process. Whatever is traced in this one keeps
    rows waiting.
    """
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


class Pace:
    """The latest steps' times. One thread measures, another may read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times_s: deque[float] = deque(maxlen=_NUM_KEPT)
        self._started: float | None = None
        self._adopting: float | None = None
        self.p99_s = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure one step."""
        self._started = self._clock()
        try:
            yield
        finally:
            self._times_s.append(self._clock() - self._started)
            self._started = None
            self.p99_s = sorted(self._times_s)[math.ceil(0.99 * len(self._times_s)) - 1]

    @contextmanager
    def adoption(self) -> Iterator[None]:
        """Measure the time between two steps, in which compiled forwards are installed."""
        self._adopting = self._clock()
        try:
            yield
        finally:
            self._adopting = None

    def running_s(self) -> float:
        """Return the seconds that the running step has taken so far; 0 between steps."""
        return self._since(self._started)

    def adopting_s(self) -> float:
        """Return the seconds that it has taken so far to take up a forward; 0 otherwise."""
        return self._since(self._adopting)

    def _since(self, started: float | None) -> float:
        return 0.0 if started is None else self._clock() - started
