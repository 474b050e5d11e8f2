"""In which precision networks learn and are measured on a device."""

from __future__ import annotations

import torch

from models.device import has_bf16_matrix_units


def mixed(device: torch.device) -> torch.autocast:
    """Return a context in which bfloat16 is used where the device multiplies it natively.

    A processor without such units imitates it: 0.3 GFLOP/s on an AVX2 core that makes 79 in
    float32, so that a step which should take two seconds takes minutes.
    """
    native = device.type != "cpu" or has_bf16_matrix_units()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)
