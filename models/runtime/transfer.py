"""Between the host and a device without waiting, and moments in the order of what a device does.

On CUDA work is put into a queue: copies from and into pinned memory and events stand behind what
was asked before them, and the host goes on meanwhile. On a CPU all is done when a call returns.

Source: "Asynchronous execution" and "Use pinned memory buffers" in PyTorch's notes on CUDA.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, Self

import torch


class Moment(Protocol):
    """A place in the order of what a device does."""

    def has_come(self) -> bool:
        """Return whether the device has done all that was asked of it before."""
        ...

    def wait(self) -> None:
        """Return when it has."""
        ...

    def ms_since(self, earlier: Self) -> float:
        """Return the milliseconds from another moment to this one, when both have come."""
        ...


class Transfer(Protocol):
    """A device's way to the host. Used by the thread that owns the device."""

    def moment(self) -> Moment:
        """Return the moment after all that was asked of the device so far."""
        ...

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Begin to copy a tensor; the values are there when a moment taken later has come."""
        ...


def to_device(
    tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return a tensor on a device, and in a dtype, without waiting for what the device does.

    The host's values are read at once, and may be changed afterwards.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel():
        # torch keeps the pinned memory until the copy is done; this code does not.
        tensor = tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device, dtype)


def transfer_of(device: torch.device) -> Transfer:
    """Return the way from a device to the host."""
    return CudaTransfer() if device.type == "cuda" else HostTransfer()


class HostMoment:
    """A moment of a CPU: it has come."""

    def __init__(self) -> None:
        self._at_s = time.perf_counter()

    def has_come(self) -> bool:
        return True

    def wait(self) -> None:
        """There is nothing to wait for."""

    def ms_since(self, earlier: Self) -> float:
        return 1000 * (self._at_s - earlier._at_s)


class HostTransfer:
    """No way at all: what is on a CPU is on the host."""

    def moment(self) -> HostMoment:
        return HostMoment()

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cpu()


class CudaMoment:
    """An event in the current stream."""

    def __init__(self) -> None:
        self._event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def has_come(self) -> bool:
        return bool(self._event.query())

    def wait(self) -> None:
        self._event.synchronize()

    def ms_since(self, earlier: Self) -> float:
        return float(earlier._event.elapsed_time(self._event))


class CudaTransfer:
    """Copies in the current stream, into pinned memory that torch keeps for the next one."""

    def moment(self) -> CudaMoment:
        return CudaMoment()

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)
