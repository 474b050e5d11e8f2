"""What the machine gives at most: a large matrix product, and a large copy, in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.core.setup import Place

_REPEATS = 5
_MATRIX = {"cpu": 2048, "cuda": 8192}
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}


@dataclass(frozen=True)
class Ceiling:
    """10^12 operations and 10^9 bytes (read and written) a second."""

    tflops: float
    gb_per_s: float


def measure_ceiling(place: Place, scale: float = 1.0) -> Ceiling:
    """Return the best of a few products and copies, in the dtype of the lanes.

    Of random numbers: a card that multiplies zeros draws less power, and is faster. `scale`
    shrinks both, for a rehearsal.
    """
    kind = "cuda" if place.is_cuda else "cpu"
    side = max(64, int(scale * _MATRIX[kind]))
    left, right = (_random(place, side, side) for _ in range(2))
    source = _random(place, max(1024, int(scale * _COPY_BYTES[kind] / place.dtype.itemsize)))
    target = torch.empty_like(source)
    product_s = _best_s(place, lambda: left @ right)
    copy_s = _best_s(place, lambda: target.copy_(source))
    moved = 2 * source.numel() * source.element_size()
    return Ceiling(2 * side**3 / product_s / 1e12, moved / copy_s / 1e9)


def _random(place: Place, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device=place.device, dtype=place.dtype)


def _best_s(place: Place, call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_REPEATS):
        place.synchronise()
        started = time.perf_counter()
        call()
        place.synchronise()
        times.append(time.perf_counter() - started)
    return min(times)
