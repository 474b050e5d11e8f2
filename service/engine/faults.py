"""What an exception of the torch side means: one job's failure, no memory, or a sick device."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import structlog
import torch

from service.errors import GenerationFailed, OutOfMemory

_log = structlog.get_logger(__name__)

_NO_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")

# After these every later call on the device fails too: "the process must be terminated and
# relaunched", as CUDA's driver_types.h says of each.
_STICKY = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "hardware stack error",
    "device is lost",
    "execution_failed",
)


# What a capture forbids, or could not take, is wrong with the capture and not with the device.
_OF_A_CAPTURE = "captur"


class DeviceLost(Exception):
    """The device answers nothing any more; only a new process cures it."""


class NotFinite(Exception):
    """The model made NaN, infinity or nothing of a row, which would be sent as a black picture."""


class Fault(Enum):
    """How work on one job or batch failed, by the code that the job fails with."""

    GENERATION_FAILED = GenerationFailed.code
    OUT_OF_MEMORY = OutOfMemory.reason


def caught(work: Callable[[], object]) -> Fault | None:
    """Run `work`; return its fault, None where it succeeds.

    By then its exception is gone, and with it the tensors of every frame that it held (pytorch
    issue 18853): what comes next may have their memory. Raises DeviceLost for an error that sticks.
    """
    try:
        work()
    except Exception as error:  # whatever it is, the neighbours must not suffer
        if is_sticky(error):
            raise DeviceLost(type(error).__name__) from error
        if is_out_of_memory(error):
            _log.warning("the device is out of memory", error=type(error).__name__)
            return Fault.OUT_OF_MEMORY
        _log.exception("work on a job failed")
        return Fault.GENERATION_FAILED
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether less at once could succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _mentions(error, _NO_MEMORY)


def is_sticky(error: Exception) -> bool:
    """Return whether the device is sick."""
    if isinstance(error, DeviceLost):
        return True
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    if _mentions(error, (_OF_A_CAPTURE,)):
        return False
    return isinstance(error, torch.AcceleratorError) or _mentions(error, _STICKY)


def release_memory(device: torch.device) -> None:
    """Give what torch keeps for later back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """Return the bytes of a device that tensors have, and that torch has in all; 0 on a CPU."""
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)


def _mentions(error: Exception, texts: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(text in message for text in texts)
