"""Which of torch's kernels computes attention: for each forward the one that is fastest here.

Flash attention, cuDNN's and the memory-efficient one give equal results in unequal times, and
which is the fastest depends on the card, the tokens and the heads. torch takes them in a fixed
order. Here the attention of a forward, on the sizes that it will serve, is timed with each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.benchmark import Timer

BACKENDS = {
    "cpu": (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH),
    "cuda": (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
    ),
}
"""What may be fastest on a device; plain products of 16,384 tokens at 1024 take gigabytes there."""

Call = Callable[[], Any]

_CPU_CALLS = 3
_PROJECTIONS = ("to_q", "to_k", "to_v")


def pick_backend(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    time_s: Callable[[Call], float] | None = None,
) -> SDPBackend | None:
    """Return what computes a forward's attention fastest.

    Runs the forward once to see its attention, then each backend on what was seen. None where there
    is none, or where no backend can compute all of it: torch then chooses for each by itself.
    """
    device = inputs[0].device.type
    timed = time_s or (_time_on_cuda if device == "cuda" else _time_on_cpu)
    seen = _Attention()
    with torch.no_grad(), seen:
        module(*inputs)
    if not seen.calls:
        return None
    times = {backend: _total(seen, backend, timed) for backend in BACKENDS[device]}
    fastest = min(times, key=times.__getitem__)
    return fastest if math.isfinite(times[fastest]) else None


def attending_by(backend: SDPBackend | None) -> AbstractContextManager[None]:
    """Within it that backend alone computes attention; None leaves the choice to torch."""
    return nullcontext() if backend is None else sdpa_kernel(backend)


def fuse_projections(unet: nn.Module, adapted: Collection[str]) -> None:
    """Let one product make query, key and value, and of a prompt key and value.

    `adapted` are layers, as "unet.mid_block...to_q": an attention of which one is there stays as
    it is, since what an adapter changes has to be found by its name.
    """
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and not any(
            f"unet.{name}.{part}" in adapted for part in _PROJECTIONS
        ):
            module.fuse_projections()
            module.set_processor(FusedAttnProcessor2_0())
            module.requires_grad_(False)  # noqa: FBT003 - torch's signature
            for part in _PROJECTIONS[1:] if module.is_cross_attention else _PROJECTIONS:
                delattr(module, part)  # their weights would take the room twice


class _Attention(TorchFunctionMode):
    """Within it calls of attention are noted: one of each size, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Any, Call] = {}
        self.counts: Counter[Any] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is scaled_dot_product_attention:
            sizes = tuple(map(_layout, (*args, *kwargs.values())))
            self.calls.setdefault(sizes, lambda: func(*args, **kwargs))
            self.counts[sizes] += 1
        return func(*args, **kwargs)


def _layout(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.stride()
    return value


def _total(seen: _Attention, backend: SDPBackend, time_s: Callable[[Call], float]) -> float:
    """Return the seconds of all that was seen, infinite where a backend cannot compute it."""
    try:
        with torch.no_grad(), sdpa_kernel(backend):
            return sum(seen.counts[sizes] * time_s(call) for sizes, call in seen.calls.items())
    except RuntimeError:  # as torch says that no kernel is available
        return math.inf


def _time_on_cpu(call: Call) -> float:
    call()
    return float(Timer("call()", globals={"call": call}).timeit(_CPU_CALLS).median)


def _time_on_cuda(call: Call) -> float:
    """Time calls within a CUDA graph, as they will run: launches from the host would hide them."""
    from triton.testing import do_bench_cudagraph  # noqa: PLC0415 - it comes with CUDA

    call()
    return float(do_bench_cudagraph(call)) / 1000
