"""The machine's peak: a large matrix product and a large copy, measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.core.setup import Setup
from benchmarks.core.timing import timed

_REPEATS = 5
_MATRIX = {"cpu": 2048, "cuda": 8192}
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}


@dataclass(frozen=True)
class Roofline:
    """10^12 operations a second, and 10^9 bytes (read and written) a second."""

    tflops: float
    gb_per_s: float

    def columns(self) -> dict[str, float]:
        return {
            "roofline_tflops": round(self.tflops, 3),
            "roofline_gb_per_s": round(self.gb_per_s, 1),
        }


def measure_roofline(setup: Setup, scale: float = 1.0) -> Roofline:
    """Return the best of a few products and copies, in the dtype of the lanes.

    Numbers are random: a GPU that multiplies zeros draws less power and is faster. `scale` shrinks
    both for a quick check.
    """
    kind = "cuda" if setup.is_cuda else "cpu"

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=setup.device, dtype=setup.dtype)

    def best_s(call: Callable[[], object]) -> float:
        call()
        return min(timed(call, setup.synchronise)() for _ in range(_REPEATS))

    side = max(64, int(scale * _MATRIX[kind]))
    left, right = random(side, side), random(side, side)
    source = random(max(1024, int(scale * _COPY_BYTES[kind] / setup.dtype.itemsize)))
    target = torch.empty_like(source)
    num_bytes = 2 * source.numel() * source.element_size()
    return Roofline(
        tflops=2 * side**3 / best_s(lambda: left @ right) / 1e12,
        gb_per_s=num_bytes / best_s(lambda: target.copy_(source)) / 1e9,
    )
