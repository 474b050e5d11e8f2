"""Muon for matrices and convolutions, AdamW for the other parameters.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes each momentum matrix
nearly orthogonal by a Newton-Schulz iteration before the step: rare directions move as much as
common ones. The step is scaled by 0.2 * sqrt(max(rows, columns)) to the size of AdamW's (Liu et al.
2025, arXiv 2502.16982). `torch.optim.Muon` accepts no convolution kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic's coefficients, from the post
_ADAMW_PARAMETERS = ("embedding", "conv_in", "conv_out", "time_", "trunk")
"""Parts of names: embeddings, first and last layers keep AdamW."""


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return the matrix [m, n] with its singular values brought near 1.

    Every iterate is a polynomial of the Gram matrix times the matrix. The iteration therefore runs
    on the small Gram matrix alone: two products with the whole matrix instead of ten.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T  # [m, m]
    eye = torch.eye(len(gram), device=gram.device)
    product: Tensor = eye
    for _ in range(ITERATIONS):
        step = _A * eye + _B * gram + _C * gram @ gram
        product = step @ product
        gram = step @ step @ gram
    x = product @ x
    result: Tensor = (x.T if is_tall else x).to(matrix.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Both optimizers behind one learning rate; AdamW takes half of it."""

    def __init__(self, module: nn.Module, *, weight_decay: float = 0.01) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                is_other = any(part in name for part in _ADAMW_PARAMETERS)
                (others if is_other or parameter.ndim < 2 else matrices).append(parameter)
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})
        self.momenta = [torch.zeros_like(p) for p in matrices]
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0, fused=True)

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's signature
        super().zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # noqa: ARG002
        (matrices,) = self.param_groups
        for group in self.adamw.param_groups:
            group["lr"] = matrices["lr"] * 0.5
        self.adamw.step()
        for parameter, momentum in zip(matrices["params"], self.momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.mul_(MOMENTUM).add_(parameter.grad)
            update = (parameter.grad + MOMENTUM * momentum).flatten(1)  # [out, in * kernel]
            scale = 0.2 * max(update.shape) ** 0.5
            parameter.mul_(1 - matrices["lr"] * matrices["weight_decay"])
            update = orthogonalise(update).view_as(parameter)
            parameter.add_(update, alpha=-matrices["lr"] * scale)
