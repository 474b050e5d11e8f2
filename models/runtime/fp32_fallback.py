"""Running a module of 16 bits in fp32, for the rare row that overflows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_SIXTEEN_BITS = (torch.float16, torch.bfloat16)


class InFp32(TorchFunctionMode):
    """Within it every function of torch gets its tensors of 16 bits in fp32.

    Weights are cast as they are used, a layer at a time, and stay as they are: no copy of a module
    has to fit into memory beside it, and what was compiled or captured with it holds. What a module
    itself turns into its own dtype is rounded to that, and computed with in fp32 again. Slow.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") == "__get__":  # a shape or dtype, which needs no cast
            return func(*args, **(kwargs or {}))
        return func(*_cast(args), **_cast(dict(kwargs or {})))


def _cast(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in _SIXTEEN_BITS else value
    if isinstance(value, tuple | list):
        return type(value)(_cast(item) for item in value)
    if isinstance(value, dict):
        return {name: _cast(item) for name, item in value.items()}
    return value
