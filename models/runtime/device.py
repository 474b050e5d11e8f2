"""The default device, dtype and batch of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

_MAX_BATCH = 8
_BF16_MATRIX_FLAG, _BF16_VECTOR_FLAG = "amx_bf16", "avx512_bf16"
_CPUINFO = Path("/proc/cpuinfo")


def pick_device(name: str) -> str:
    """Return the torch device that `name` means; `auto` is CUDA where there is one.

    Raises ValueError, with the cure, for a device that is not here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"no device is called {name!r}: use auto, cpu, cuda or cuda:N") from error
    if kind.type not in {"cpu", "cuda"}:
        raise ValueError(f"the device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"there is no device {name!r} here: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; `instant-refine doctor` tells more"
        )
    return name


def pick_dtype(name: str, device: str) -> torch.dtype:
    """Return the dtype that `name` means on a device.

    `auto` is float16 on CUDA; on a CPU bfloat16 where the processor has matrix units for it,
    else float32. With `avx512_bf16` alone, bfloat16 was the slower one: 68 ms against 44 for a
    UNet step of the bundled checkpoint at 512 x 512 on two cores.
    """
    if name != "auto":
        return {
            "float32": torch.float32,
            "float16": torch.float16,
            "bfloat16": torch.bfloat16,
        }[name]
    if device != "cpu":
        return torch.float16
    return torch.bfloat16 if has_bf16_matrix_units() else torch.float32


def default_batch(device: str) -> int:
    """Return how many rows of 512 x 512 share a forward by default.

    On a CPU a row for each of torch's threads, since each then has a row to
    itself (models.runtime.cpu_parallel).
    """
    return _MAX_BATCH if device != "cpu" else min(_MAX_BATCH, torch.get_num_threads())


def has_bf16_matrix_units() -> bool:
    """Return whether this processor multiplies bfloat16 matrices; False where it does not say."""
    return _BF16_MATRIX_FLAG in _cpu_flags()


def has_bf16_products() -> bool:
    """Return whether this processor multiplies bfloat16 natively, matrices or vectors."""
    return not _cpu_flags().isdisjoint((_BF16_MATRIX_FLAG, _BF16_VECTOR_FLAG))


def _cpu_flags() -> frozenset[str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
