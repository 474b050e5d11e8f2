"""Mixed precision: attention by plain products where bfloat16 is native on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from models.training.loop.precision import attend, mixed
from models.training.networks.architecture import build_text_encoder

CPU = torch.device("cpu")


@pytest.fixture(name="_native")
def _make_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bfloat16."""
    monkeypatch.setattr("models.training.loop.precision.has_bf16_products", lambda: True)


def _inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 4, tokens, 36, requires_grad=True) for tokens in (64, 40, 40)]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"scale": 0.1},
        {"is_causal": True},
        {"attn_mask": torch.arange(40).expand(64, 40) < 30},
        {"attn_mask": torch.randn(64, 40)},
    ],
)
def test_plain_products_are_torchs_attention(asked: dict[str, Any]) -> None:
    """Forwards and backwards, with whatever is asked of it, to the precision of bfloat16."""
    inputs = _inputs()
    for function in (scaled_dot_product_attention, attend):
        out = function(*inputs, **asked).float()
        grads = torch.autograd.grad(out.square().sum(), inputs)
        if function is scaled_dot_product_attention:
            expected = (out, *grads)
    for made, true in zip((out, *grads), expected, strict=True):
        assert (made - true).norm() < 0.02 * true.norm()


@pytest.mark.usefixtures("_native")
def test_networks_attend_by_plain_products_in_mixed_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where bfloat16 is native every attention of a net comes there, and outside none does."""
    calls = []

    def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(kwargs)
        return attend(*args, **kwargs)

    monkeypatch.setattr("models.training.loop.precision.attend", noted)
    text, tokens = build_text_encoder().eval(), torch.arange(8)[None]
    with torch.no_grad():
        plain = text(tokens).last_hidden_state
        assert not calls
        with mixed(CPU):
            made = text(tokens).last_hidden_state
    assert len(calls) == text.config.num_hidden_layers
    assert (made - plain).norm() < 0.02 * plain.norm()


@pytest.mark.usefixtures("_native")
def test_attention_with_dropout_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain products know no dropout."""
    monkeypatch.setattr("models.training.loop.precision.attend", None)
    with mixed(CPU):
        query, key, value = _inputs()
        scaled_dot_product_attention(query, key, value, dropout_p=0.5)
