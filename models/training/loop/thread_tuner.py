"""The number of threads of a training step while other programs use the processor.

With a thread on every core, each parallel region waits for the slowest thread. On a shared machine
two threads ran at a third of the speed of one. Therefore a step is timed with one thread and a step
with all of them now and then, and the faster number is kept.
"""

from __future__ import annotations

import time

import torch

PERIOD = 40  # steps between trials


class ThreadTuner:
    """Call `before_step` at the start of each step."""

    def __init__(self) -> None:
        self.counts = sorted({1, torch.get_num_threads()})
        self.step = 0
        self._seconds = dict.fromkeys(self.counts, 0.0)
        self._last = time.monotonic()

    def before_step(self) -> None:
        if len(self.counts) == 1:
            return
        now = time.monotonic()
        trial = self.step % PERIOD - 1  # the first step of all is slow with any count
        if 0 < trial <= len(self.counts):
            self._seconds[self.counts[trial - 1]] = now - self._last
        if 0 <= trial < len(self.counts):
            torch.set_num_threads(self.counts[trial])
        elif trial == len(self.counts):
            torch.set_num_threads(min(self.counts, key=self._seconds.__getitem__))
        self._last = now
        self.step += 1
