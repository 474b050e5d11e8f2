"""Mixed precision: bfloat16 and attention by matrix products, where a CPU has native bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from models.training.loop.precision import attend, mixed
from models.training.networks.architecture import build_text_encoder

CPU = torch.device("cpu")
MODULE = "models.training.loop.precision"


@pytest.fixture(name="_native")
def _make_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with native products of bfloat16."""
    monkeypatch.setattr(f"{MODULE}.has_bf16_products", lambda: True)


def _inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 4, tokens, 36, requires_grad=True) for tokens in (64, 40, 40)]


@pytest.mark.parametrize("native", [False, True])
def test_dtype(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    """Products are in bfloat16 on a processor with native ones, else in float32."""
    monkeypatch.setattr(f"{MODULE}.has_bf16_products", lambda: native)
    with mixed(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"scale": 0.1},
        {"is_causal": True},
        {"attn_mask": torch.arange(40).expand(64, 40) < 30},
        {"attn_mask": torch.randn(64, 40)},
    ],
)
def test_attention_is_torchs(arguments: dict[str, Any]) -> None:
    """Outputs and gradients are those of torch's kernel, to the precision of bfloat16."""
    inputs = _inputs()
    for function in (scaled_dot_product_attention, attend):
        out = function(*inputs, **arguments).float()
        gradients = torch.autograd.grad(out.square().sum(), inputs)
        if function is scaled_dot_product_attention:
            expected = (out, *gradients)
    for ours, theirs in zip((out, *gradients), expected, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.usefixtures("_native")
def test_networks_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In mixed precision all attention of a network is replaced, and outside none is."""
    calls = []

    def record(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(kwargs)
        return attend(*args, **kwargs)

    monkeypatch.setattr(f"{MODULE}.attend", record)
    text, tokens = build_text_encoder().eval(), torch.arange(8)[None]
    with torch.no_grad():
        full = text(tokens).last_hidden_state
        assert not calls
        with mixed(CPU):
            half = text(tokens).last_hidden_state
    assert len(calls) == text.config.num_hidden_layers
    assert (half - full).norm() < 0.02 * full.norm()


@pytest.mark.usefixtures("_native")
def test_dropout_uses_torchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention with dropout is not replaced."""
    monkeypatch.setattr(f"{MODULE}.attend", None)
    with mixed(CPU):
        query, key, value = _inputs()
        scaled_dot_product_attention(query, key, value, dropout_p=0.5)
