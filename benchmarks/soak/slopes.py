"""Does it grow? A robust slope with its interval, and the bound that a run of some length can hold.

Garbage collection makes saw-teeth, so the slope is that of the lower envelope: the least value of
each of some thirty bins, through which Theil and Sen's median of pairwise slopes goes. A saw-tooth
moves a median little, and so does a single jump, but for one in the middle: that may be a leak
which shows in few steps, as those of small objects do, and only a longer run can tell. Its 95 %
interval is Sen's (1968), by ranks, for bins whose noise is independent: told, and not relied upon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import theilslopes

NUM_BINS = 30
MOST_MB_PER_HOUR = 1.0
WHOLE_RUN_S = 1800.0


@dataclass(frozen=True)
class Slope:
    """Growth per hour and the ends of its 95 % interval."""

    per_hour: float
    low: float
    high: float

    def verdict(self, bound: float) -> str:
        """Tell `grows` or `holds` where all of the interval does, else `open`."""
        if self.low > bound:
            return "grows"
        return "holds" if self.high <= bound else "open"


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit the lower envelope; raises ValueError under three samples."""
    if len(times_s) < 3:
        raise ValueError("a slope needs three samples")
    bins = np.array_split(np.arange(len(times_s)), min(NUM_BINS, len(times_s)))
    lowest = [int(part[np.argmin(np.asarray(values)[part])]) for part in bins]
    hours = np.asarray(times_s)[lowest] / 3600
    fit = theilslopes(np.asarray(values)[lowest], hours, alpha=0.95)
    return Slope(float(fit.slope), float(fit.low_slope), float(fit.high_slope))


def bound_mb_per_hour(seconds: float) -> float:
    """1 MB/h from half an hour on; a shorter run allows more, by the square of what it lacks.

    What merely settles (arenas, caches) grows fast at first: a slope of seconds says nothing of
    hours. Forty seconds so hold a leak of half a megabyte a second, and no smaller one.
    """
    return MOST_MB_PER_HOUR * max(1.0, WHOLE_RUN_S / seconds) ** 2


def has_grown(counts: Sequence[int]) -> bool:
    """Whether the last third never came down to the most of the first one."""
    third = max(1, len(counts) // 3)
    return min(counts[-third:]) > max(counts[:third])
