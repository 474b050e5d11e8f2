"""A device that is behind the host, for machines without one: copies arrive when waited for."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Self

import torch

GARBAGE = 255
"""What the host reads who does not wait."""


class LateTransfer:
    """Copies arrive when a moment after them comes: waited for, or found to have come by chance.

    Every moment is a millisecond later than the one before.
    """

    def __init__(self, chance: float = 0.0, seed: int = 0) -> None:
        self.num_waits = 0
        self.on_wait: Callable[[], None] = lambda: None
        self._chance, self._rng = chance, random.Random(seed)
        self._num_moments = self._num_come = 0
        self._copies: deque[tuple[int, torch.Tensor, torch.Tensor]] = deque()

    def moment(self) -> LateMoment:
        self._num_moments += 1
        return LateMoment(self, self._num_moments)

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        on_host = torch.full_like(tensor, GARBAGE)
        self._copies.append((self._num_moments, on_host, tensor.clone()))
        return on_host

    def reach(self, number: int) -> None:
        """Let all arrive that was asked for before a moment."""
        self._num_come = max(self._num_come, number)
        while self._copies and self._copies[0][0] < number:
            _, on_host, values = self._copies.popleft()
            on_host.copy_(values)

    def has_reached(self, number: int) -> bool:
        if self._num_come < number and self._rng.random() < self._chance:
            self.reach(number)
        return self._num_come >= number


class LateMoment:
    def __init__(self, device: LateTransfer, number: int) -> None:
        self._device, self._number = device, number

    def has_come(self) -> bool:
        return self._device.has_reached(self._number)

    def wait(self) -> None:
        if not self._device._num_come >= self._number:
            self._device.num_waits += 1
            self._device.on_wait()
        self._device.reach(self._number)

    def ms_since(self, earlier: Self) -> float:
        assert self._device._num_come >= self._number, "the moment has not come yet"
        return float(self._number - earlier._number)
