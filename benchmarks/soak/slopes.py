"""Growth: a robust slope with its interval, and the bound that a run of some length can prove.

Garbage collection makes saw-teeth, so the slope is that of the lower envelope: the least value of
each of 30 bins, and the Theil-Sen median of their pairwise slopes. A saw-tooth hardly moves a
median, and neither does a single jump, except in the middle of the run. That may be a leak with few
large steps, as leaks of small objects are, and only a longer run can decide. The 95 % interval is
Sen's (1968), by ranks, for bins with independent noise: reported, but no verdict uses it.
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
        """Return `grows` or `holds` if all of the interval does, else `open`."""
        if self.low > bound:
            return "grows"
        return "holds" if self.high <= bound else "open"


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit the lower envelope. Raises ValueError for fewer than three samples."""
    if len(times_s) < 3:
        raise ValueError("a slope needs three samples")
    bins = np.array_split(np.arange(len(times_s)), min(NUM_BINS, len(times_s)))
    lowest = [int(part[np.argmin(np.asarray(values)[part])]) for part in bins]
    hours = np.asarray(times_s)[lowest] / 3600
    fit = theilslopes(np.asarray(values)[lowest], hours, alpha=0.95)
    return Slope(float(fit.slope), float(fit.low_slope), float(fit.high_slope))


def bound_mb_per_hour(seconds: float) -> float:
    """Return 1 MB/h from half an hour on; a shorter run allows more, by the square of the ratio.

    Arenas and caches grow fast at first, so a slope of seconds says nothing about hours. Forty
    seconds find a leak of half a megabyte a second, and no smaller one.
    """
    return MOST_MB_PER_HOUR * max(1.0, WHOLE_RUN_S / seconds) ** 2


def has_grown(counts: Sequence[int]) -> bool:
    """Return whether the last third never came down to the maximum of the first."""
    third = max(1, len(counts) // 3)
    return min(counts[-third:]) > max(counts[:third])
