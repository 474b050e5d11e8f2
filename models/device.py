"""Which device and dtype a checkpoint runs in when nobody says."""

from __future__ import annotations

from pathlib import Path

import torch

_NATIVE_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 twice, then 64-bit Arm
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

    `auto` is float16 on CUDA; on a CPU bfloat16 where the processor multiplies in it, else
    float32.
    """
    if name != "auto":
        return {
            "float32": torch.float32,
            "float16": torch.float16,
            "bfloat16": torch.bfloat16,
        }[name]
    if device != "cpu":
        return torch.float16
    return torch.bfloat16 if has_native_bf16() else torch.float32


def has_native_bf16() -> bool:
    """Tell whether this processor multiplies bfloat16; False where it does not say."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _NATIVE_BF16_FLAGS.isdisjoint(flags.split())
