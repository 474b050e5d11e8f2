"""Resumable state: networks with a moving average of their weights. Knows no particular model.

A stage's state is one safetensors file, written to a temporary name and then renamed: a killed run
leaves the last complete state. Weights and averages are stored in 16 bits. The optimizer's moments
are not stored; a resumed run warms up a new optimizer. A stage's state stays under 50 MB this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

DECAY = 0.998
RESUMED_UPDATES = 300  # of a resumed average: enough for its full horizon

Net = TypeVar("Net", bound=nn.Module)


class MovingAverage:
    """An exponential moving average of a module's parameters, in float32."""

    def __init__(self, module: nn.Module, decay: float = DECAY) -> None:
        self.decay, self.updates = decay, 0
        self.tensors = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    def to(self, device: torch.device) -> None:
        self.tensors = {name: value.to(device) for name, value in self.tensors.items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module; the first updates move further, to forget the start."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value.float(), 1 - decay)


class NetworkState(Generic[Net]):
    """A network, its moving average, and the number of images it has learned from."""

    def __init__(self, path: Path, net: Net, *, source: Path | None = None) -> None:
        """Resume from `source` (by default `path`) if it exists."""
        self.path, self.net, self.seen = path, net, 0
        self.average = MovingAverage(net)
        source = source or path
        self.is_resumed = source.exists()
        if self.is_resumed:
            tensors, facts = load_state(source)
            net.load_state_dict(_with_prefix(tensors, "weights."))
            self.average.tensors = _with_prefix(tensors, "average.")
            self.average.updates = RESUMED_UPDATES
            self.seen = int(facts["seen"])

    def to(self, device: torch.device) -> None:
        self.net.to(device)
        self.average.to(device)

    def count(self, rows: int) -> None:
        """Update the average after an optimizer step that learned from `rows`."""
        self.average.update(self.net)
        self.seen += rows

    def save(self) -> None:
        save_network(self.path, self.net.state_dict(), self.average.tensors, seen=self.seen)


def save_network(
    path: Path, weights: Mapping[str, Tensor], average: Mapping[str, Tensor], *, seen: int
) -> None:
    """Write a state that `NetworkState` and `load_network` read."""
    tensors = {f"weights.{name}": value for name, value in weights.items()}
    save_state(path, tensors | {f"average.{k}": v for k, v in average.items()}, seen=seen)


def load_network(path: Path, net: Net) -> Net:
    """Load the averaged weights of a state into `net`; return it for inference, in float32."""
    net.load_state_dict(_with_prefix(load_state(path)[0], "average."))
    return net.eval().requires_grad_(False)  # noqa: FBT003 - torch's signature


def save_state(path: Path, tensors: Mapping[str, Tensor], **facts: object) -> None:
    """Write tensors (floats in 16 bits) and facts atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in tensors.items()
    }
    temporary = path.with_suffix(".tmp")
    save_file(packed, temporary, metadata={key: str(value) for key, value in facts.items()})
    temporary.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_state` wrote: tensors (floats as float32) and facts."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = dict(file.metadata() or {})
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, facts


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
