"""The precision in which networks are trained and evaluated on a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from models.runtime.device import has_bf16_products

_ARGUMENTS = ("query", "key", "value", "attn_mask", "is_causal", "scale")


@contextmanager
def mixed(device: torch.device) -> Iterator[None]:
    """Compute in bfloat16 where the device has native products of it, else in float32.

    A processor without them emulates bfloat16: 0.3 GFLOP/s on an AVX2 core that reaches 79 in
    float32. A step of two seconds would take minutes.
    """
    if device.type != "cpu":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif has_bf16_products():
        with torch.autocast("cpu", torch.bfloat16), _ProductAttention():
            yield
    else:
        yield


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Return `scaled_dot_product_attention` [B, heads, L, D], computed by two matrix products.

    In bfloat16 on a CPU, forward and backward, it takes a fifth to a half of the time of torch's
    kernel. On a core with AVX-512: 138 ms against 302 for 96 rows of 4 heads, 256 tokens and 40
    channels, 11 against 57 for 64 tokens and a prompt of 40. In float32 both take the same time.
    """
    query, key, value = (part.bfloat16() for part in (query, key, value))
    with torch.autocast("cpu", enabled=False):  # autocast would compute the softmax in float32
        scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
        if is_causal:
            visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~visible, -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask.to(scores.dtype)
        return scores.softmax(-1) @ value


class _ProductAttention(TorchFunctionMode):
    """Replaces calls of torch's kernel by `attend` within a with-block."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is scaled_dot_product_attention and kwargs.get("dropout_p", 0.0) == 0:
            return attend(*args, **{name: kwargs[name] for name in kwargs if name in _ARGUMENTS})
        return func(*args, **kwargs)
