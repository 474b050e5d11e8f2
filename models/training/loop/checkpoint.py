"""Time budgets, moving averages and resumable state. Knows no model.

State is one safetensors file a stage, written beside its name and then moved over it, so that
a killed run leaves the last whole state. Weights and their average are kept in 16 bits and the
optimizer's moments are not kept: a resumed run warms up a fresh optimizer instead, so that the
state of each stage stays under 50 MB.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class Budget:
    """A stretch of minutes; `rate` is the learning rate's factor at this moment."""

    def __init__(self, minutes: float, warmup_steps: int = 100, decay: float = 0.3) -> None:
        self.seconds = minutes * 60
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.steps = 0
        self._begin = time.monotonic()

    @property
    def done(self) -> float:
        """How much of the budget is spent, 0..1."""
        return min(1.0, (time.monotonic() - self._begin) / max(self.seconds, 1e-6))

    @property
    def over(self) -> bool:
        return self.done >= 1.0

    @property
    def rate(self) -> float:
        """Warm up by steps, hold, then fall linearly to a twentieth over the last `decay`."""
        warm = min(1.0, (self.steps + 1) / self.warmup_steps)
        fall = min(1.0, (1 - self.done) / self.decay)
        return warm * max(fall, 0.05)


class Average:
    """An exponential moving average of a module's parameters, in float32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    def to(self, device: torch.device) -> None:
        self.shadow = {name: value.to(device) for name, value in self.shadow.items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value.float(), 1 - keep)

    def restart(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Take up a saved average; `updates` keeps its horizon."""
        self.updates = updates
        for name, value in state.items():
            self.shadow[name].copy_(value)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Lend the averaged weights to the module for the length of a with-block."""
        own = {k: v.detach().clone() for k, v in module.state_dict().items()}
        module.load_state_dict(self.shadow)
        try:
            yield
        finally:
            module.load_state_dict(own)


def save_state(path: Path, tensors: Mapping[str, Tensor], **facts: object) -> None:
    """Write tensors (floats in 16 bits) and facts, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in tensors.items()
    }
    fresh = path.with_suffix(".tmp")
    save_file(packed, fresh, metadata={key: str(value) for key, value in facts.items()})
    fresh.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what save_state wrote: tensors (floats as float32) and facts."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = dict(file.metadata() or {})
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, facts


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}
