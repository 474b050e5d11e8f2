"""How many threads a training step should use while others use the processor too.

With a thread on every core, each parallel region waits for the slowest: on a shared machine,
where a background job is often set aside, two threads ran at a third of the speed of one. So
now and then a step is timed with one and a step with all, and the faster is kept.
"""

from __future__ import annotations

import time

import torch

PERIOD = 40  # steps between trials


class Pace:
    """Call `tick` at the start of each step."""

    def __init__(self) -> None:
        self.counts = sorted({1, torch.get_num_threads()})
        self.step = 0
        self._seconds = dict.fromkeys(self.counts, 0.0)
        self._last = time.monotonic()

    def tick(self) -> None:
        if len(self.counts) == 1:
            return
        now = time.monotonic()
        place = self.step % PERIOD - 1  # the very first step is slow whatever the count
        if 0 < place <= len(self.counts):
            self._seconds[self.counts[place - 1]] = now - self._last
        if 0 <= place < len(self.counts):
            torch.set_num_threads(self.counts[place])
        elif place == len(self.counts):
            torch.set_num_threads(min(self.counts, key=self._seconds.__getitem__))
        self._last = now
        self.step += 1
